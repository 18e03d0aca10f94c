#!/usr/bin/env bats
# bats file_tags=host
# What bench/count makes of its rounds. That the rounds themselves show more work is what `bench/count --planted 5` is for.
bats_require_minimum_version 1.5.0

report() { awk -f "$BATS_TEST_DIRNAME/../../bench/count-report.awk" "$@"; }

# Rounds of build 0: restore, whose work is $1 per cent more than the baseline's, waits $2; and exec, whose work is less by $3
# in the first three of eleven rounds and waits $4.
rounds() {
    local i
    for i in {1..11}; do
        echo "0 restore $((100000 * (100 + $1) + i)) $2 2"
        echo "0 exec $((1500000 - (i <= 3 ? $3 : 0))) $4 4"
        echo "0 restore.guest 2500000 - -"
    done >rounds
}

# compared STATUS LINE...: they are compared with the baseline, and no more lines are told than these.
compared() {
    local expected=$1
    shift
    run report part=1 depends part=2 baseline part=3 rounds
    echo "$output"
    [ "$status" -eq "$expected" ]
    [ "$(grep -E '^(WORSE|better)' <<<"$output" | sed -E 's/ \(bound.*//')" = "$(printf '%s\n' "$@")" ]
}

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    echo "kernel one" >depends
    rounds 0 8000000 0 0
    report -v write=1 part=1 depends part=3 rounds >baseline
}

@test "count: the rounds that made a baseline differ in nothing from it" {
    compared 0 ''
    [[ $output == *"restore "*"+0.0 %"* ]]
}

@test "count: more work is told, whatever is waited after it, and more than the spread only" {
    rounds 5 4000000 0 0
    compared 1 "WORSE: restore: +5.0 % instructions than the baseline"
    rounds 2 11000000 0 0
    compared 0 ''
    rounds -4 8000000 0 0
    compared 0 "better: restore: -4.0 % instructions than the baseline"
    sed -i 's/^exec 1500000/exec 1400000/' baseline
    rounds 0 8000000 0 0
    compared 1 "WORSE: exec: +7.1 % instructions than the baseline"
    rounds 0 8000000 200000 0
    compared 0 ''
}

@test "count: a wait is told that is new, or longer by more than a tick" {
    rounds 0 13000000 0 30000
    compared 1 "WORSE: restore: waits 5.00 M longer than the baseline"
    rounds 0 8000000 0 100000
    compared 1 "WORSE: exec: waits 0.10 M longer than the baseline"
}

@test "count: another commit's rounds are compared too, another kernel's baseline is not" {
    rounds 5 8000000 0 0
    { cat rounds; sed 's/^0/1/' rounds; } >both
    echo "kernel two" >depends
    run report -v against=abc part=1 depends part=2 baseline part=3 both
    [ "$status" -eq 0 ]
    [[ $output == *"abc"*"restore "*"+0.0 %"*"not compared with the baseline, which is of another kernel one (here two)"* ]]
}

@test "count: what --planted plants is a share of the baseline's work" {
    [ "$(report -v plant=5 part=1 depends part=2 baseline)" = "restore=500000 exec=75000 restore.guest=125000" ]
}
