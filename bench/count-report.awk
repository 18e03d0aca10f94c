# The table of bench/count. Reads "NAME VALUE" lines, what the figures depend on (part=1), the baseline (part=2) and lines "BUILD
# MEASURE WORK WAIT KVM_RUNS" of all rounds (part=3; build 0: the one that is judged; 1, if there is one: the commit
# `against`). Work and wait are in instructions. -v write=1: prints a baseline instead; -v plant=PERCENT: prints as many per cent
# of the baseline's work, as bench-count's SM_COUNT_PLANTED.
#
# Two medians differ when they are further apart than what they scatter: the distance of the quartiles of the wider, and at
# least 3 %, which is what a figure moves by when code is laid out otherwise. A wait is worse when it is longer by more than
# its quartiles' distance, 3 % of the whole figure, and itself or a tick: where it waits for ticks, their phase is chance.
# What the library timed comes in step with the ticks, one more or less in all rounds: what one costs is no difference either.
# Exit status 1: one is worse.

function sorted(values, n,    i, j, v) {
    for (i = 2; i <= n; i++) {
        v = values[i]
        for (j = i - 1; j >= 1 && values[j] > v; j--)
            values[j + 1] = values[j]
        values[j + 1] = v
    }
}

# Median, quartiles, least and greatest of samples (build, measure) in column c (work, wait or runs) go to med, low, high, least and most.
function summarise(key, c,    n, i, values) {
    n = count[key]
    for (i = 1; i <= n; i++)
        values[i] = sample[key, c, i]
    sorted(values, n)
    med[key, c] = values[int((n + 1) / 2)]
    low[key, c] = values[int((n + 3) / 4)]
    high[key, c] = values[int((3 * n + 3) / 4)]
    least[key, c] = values[1]
    most[key, c] = values[n]
}

function max(a, b) {
    return a > b ? a : b
}

# By how many per cent the judged build's median is above another value, "" if that is unknown.
function above(mine, other) {
    return other > 0 ? (mine - other) * 100 / other : ""
}

# How far the quartiles of a figure are apart, per cent.
function scatter(key, c) {
    return med[key, c] > 0 ? (high[key, c] - low[key, c]) * 100 / med[key, c] : 0
}

# Judges measure m, column c (work or runs), against a value of `whom`, which scatters by `other` per cent, and returns how it is printed.
function judge(m, c, value, whom, other,    by, limit, text) {
    by = above(med["0 " m, c], value)
    if (by == "")
        return "-"
    limit = max(3, max(other, scatter("0 " m, c)))
    if (c == "work" && med["0 " m, "wait"] < 0)
        limit = max(limit, 0.15e6 * 100 / value)
    text = sprintf("%+.1f %%", by)
    if (by > limit || by < -limit) {
        told[++n_told] = sprintf("%s: %s: %+.1f %% %s than %s (bound %.1f %%)", (by > 0 ? "WORSE" : "better"), m, by,
            (c == "work" ? "instructions" : "KVM_RUNs"), whom, limit)
        worse += by > 0
        text = text "!"
    }
    return text
}

# The same for the wait of measure m against one of `value`.
function judge_wait(m, value, whom,    key, longer, limit, tick) {
    key = "0 " m
    longer = med[key, "wait"] - value
    tick = 4000000 # the nested kernel has 250 in a second
    limit = value < tick ? value : tick
    limit = max(limit, max(high[key, "wait"] - low[key, "wait"], (med[key, "work"] + med[key, "wait"]) * 0.03))
    if (longer <= limit)
        return sprintf("%+.2f", longer / 1e6)
    told[++n_told] = sprintf("WORSE: %s: waits %.2f M longer than %s (bound %.2f M)", m, longer / 1e6, whom, limit / 1e6)
    worse++
    return sprintf("%+.2f!", longer / 1e6)
}

/^#/ { next }
part == 1 { depends[++n_depends] = $0; names[$1] = $2; next }
part == 2 {
    if ($1 in names) {
        if (names[$1] != $2)
            misfit = misfit (misfit ? ", " : "") $1 " " $2 " (here " names[$1] ")"
    } else {
        based = 1
        base[$1, "work"] = $2
        base[$1, "wait"] = $3
        base[$1, "runs"] = $4
        base_spread[$1] = $5
        planted = planted (planted ? " " : "") $1 "=" int($2 * plant / 100)
    }
    next
}
{
    key = $1 " " $2
    if ($1 == 0 && !(key in count))
        order[++n_order] = $2
    i = ++count[key]
    sample[key, "work", i] = $3
    sample[key, "wait", i] = $4 == "-" ? -1 : $4
    sample[key, "runs", i] = $5 == "-" ? -1 : $5
    other_build = other_build || $1 == 1
}

# A median that may be unknown.
function or_dash(value) {
    return value < 0 ? "-" : value
}

# The columns that say how far measure m is from work, wait and KVM_RUNs of `whom`.
function compare(m, work, wait, runs, whom, spread, runs_spread,    key) {
    key = "0 " m
    printf " | %10s %9s %9s", judge(m, "work", work, whom, spread), (med[key, "wait"] < 0 ? "-" : judge_wait(m, wait, whom)),
        (med[key, "runs"] < 0 ? "-" : judge(m, "runs", runs, whom, runs_spread))
}

END {
    if (plant) {
        print planted
        exit
    }
    if (!n_order)
        exit 2
    for (key in count) {
        summarise(key, "work")
        summarise(key, "wait")
        summarise(key, "runs")
    }
    if (write) {
        print "# bench/count --write-baseline: medians of " count["0 " order[1]] " rounds: instructions of work, of waiting, KVM_RUNs, distance of the work's quartiles in per cent"
        for (i = 1; i <= n_depends; i++)
            print depends[i]
        for (i = 1; i <= n_order; i++) {
            key = "0 " order[i]
            printf "%s %d %s %s %.1f\n", order[i], med[key, "work"], or_dash(med[key, "wait"]), or_dash(med[key, "runs"]), scatter(key, "work")
        }
        exit
    }
    compared = based && !misfit
    printf "%-18s %9s %18s %9s %7s %9s", "M instructions", "work", "least .. most", "quartiles", "wait", "KVM_RUNs"
    if (compared)
        printf " | %10s %9s %9s", "baseline", "wait", "KVM_RUNs"
    if (other_build)
        printf " | %10s %9s %9s", against, "wait", "KVM_RUNs"
    print ""
    for (i = 1; i <= n_order; i++) {
        m = order[i]
        key = "0 " m
        other = "1 " m
        printf "%-18s %9.2f %18s %7.1f %% %7s %9s", m, med[key, "work"] / 1e6, sprintf("%.2f .. %.2f", least[key, "work"] / 1e6, most[key, "work"] / 1e6),
            scatter(key, "work"), (med[key, "wait"] < 0 ? "-" : sprintf("%.2f", med[key, "wait"] / 1e6)), or_dash(med[key, "runs"])
        if (compared)
            compare(m, base[m, "work"], base[m, "wait"], base[m, "runs"], "the baseline", base_spread[m], 0)
        if (other_build)
            compare(m, med[other, "work"], med[other, "wait"], med[other, "runs"], against, scatter(other, "work"), scatter(other, "runs"))
        print ""
    }
    if (misfit)
        print "not compared with the baseline, which is of another " misfit
    for (i = 1; i <= n_told; i++)
        print told[i]
    exit worse > 0
}
