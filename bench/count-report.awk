# The table of bench/count. Reads "NAME VALUE" lines, what the figures depend on (part=1), the baseline (part=2) and lines "BUILD
# MEASURE INSTRUCTIONS KVM_RUNS" of all rounds (part=3; build 0: the one that is judged; 1, if there is one: the commit
# `against`). -v write=1: prints a baseline instead.
#
# Two medians differ when they are further apart than what they scatter: the distance of the quartiles of the wider, and
# at least 3 %, which is what a figure moves by when code is laid out otherwise. Exit status 1: one is worse.

function sorted(values, n,    i, j, v) {
    for (i = 2; i <= n; i++) {
        v = values[i]
        for (j = i - 1; j >= 1 && values[j] > v; j--)
            values[j + 1] = values[j]
        values[j + 1] = v
    }
}

# Median, quartiles, least and greatest of samples (build, measure) in column c (ns or runs) go to med, low, high, least and most.
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

# By how many per cent the judged build's median is above another value, "" if that is unknown.
function above(mine, other) {
    return other > 0 ? (mine - other) * 100 / other : ""
}

# How far the quartiles of a figure are apart, per cent.
function scatter(key, c) {
    return med[key, c] > 0 ? (high[key, c] - low[key, c]) * 100 / med[key, c] : 0
}

# Judges measure m, column c, against a value of `whom`, which scatters by `other` per cent, and returns how it is printed.
function judge(m, c, value, whom, other,    by, limit, text) {
    by = above(med["0 " m, c], value)
    if (by == "")
        return "-"
    limit = scatter("0 " m, c)
    limit = limit > other ? limit : other
    limit = limit > 3 ? limit : 3
    text = sprintf("%+.1f %%", by)
    if (by > limit || by < -limit) {
        told[++n_told] = sprintf("%s: %s: %+.1f %% %s than %s (bound %.1f %%)", (by > 0 ? "WORSE" : "better"), m, by,
            (c == "ns" ? "instructions" : "KVM_RUNs"), whom, limit)
        worse += by > 0
        text = text "!"
    }
    return text
}

/^#/ { next }
part == 1 { depends[++n_depends] = $0; names[$1] = $2; next }
part == 2 {
    if ($1 in names) {
        if (names[$1] != $2)
            misfit = misfit (misfit ? ", " : "") $1 " " $2 " (here " names[$1] ")"
    } else {
        based = 1
        base[$1, "ns"] = $2
        base[$1, "runs"] = $3
        base_spread[$1] = $4
    }
    next
}
{
    key = $1 " " $2
    if ($1 == 0 && !(key in count))
        order[++n_order] = $2
    count[key]++
    sample[key, "ns", count[key]] = $3
    sample[key, "runs", count[key]] = $4 == "-" ? -1 : $4
    other_build = other_build || $1 == 1
}

END {
    if (!n_order)
        exit 2
    for (i = 1; i <= n_order; i++)
        for (b = 0; b <= 1; b++)
            if ((b " " order[i]) in count) {
                summarise(b " " order[i], "ns")
                summarise(b " " order[i], "runs")
            }
    if (write) {
        print "# bench/count --write-baseline: medians of " count["0 " order[1]] " rounds: instructions, KVM_RUNs, distance of the quartiles in per cent"
        for (i = 1; i <= n_depends; i++)
            print depends[i]
        for (i = 1; i <= n_order; i++) {
            key = "0 " order[i]
            printf "%s %d %s %.1f\n", order[i], med[key, "ns"], (med[key, "runs"] < 0 ? "-" : med[key, "runs"]), scatter(key, "ns")
        }
        exit
    }
    compare = based && !misfit
    printf "%-18s %10s %21s %9s %9s", "instructions", "median, M", "least .. most", "quartiles", "KVM_RUNs"
    printf " %10s %9s", "baseline", "KVM_RUNs"
    if (other_build)
        printf " %10s %9s", against, "KVM_RUNs"
    print ""
    for (i = 1; i <= n_order; i++) {
        m = order[i]
        key = "0 " m
        runs = med[key, "runs"]
        known = runs >= 0
        printf "%-18s %10.2f %21s %7.1f %% %9s", m, med[key, "ns"] / 1e6, sprintf("%.2f .. %.2f", least[key, "ns"] / 1e6, most[key, "ns"] / 1e6),
            scatter(key, "ns"), (known ? runs : "-")
        printf " %10s %9s", (compare ? judge(m, "ns", base[m, "ns"], "the baseline", base_spread[m]) : "-"),
            (compare && known ? judge(m, "runs", base[m, "runs"], "the baseline", 0) : "-")
        if (other_build)
            printf " %10s %9s", judge(m, "ns", med["1 " m, "ns"], against, scatter("1 " m, "ns")),
                (known ? judge(m, "runs", med["1 " m, "runs"], against, scatter("1 " m, "runs")) : "-")
        print ""
    }
    if (misfit)
        print "not compared with the baseline, which is of another " misfit
    for (i = 1; i <= n_told; i++)
        print told[i]
    exit worse > 0
}
