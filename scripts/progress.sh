# Progress on standard error: what is being done, how far it is. Sourced by the scripts that take long.
#
# begin_progress ... end_progress: between them a line is shown every ten seconds, on a terminal every second and always the same one,
# with what each part `report`ed last. A script that is started in between by another reports to that one's line ($SM_PROGRESS, a
# directory with a file for each part).
# shellcheck shell=bash

# report PART TEXT: an empty text ends the part.
report() {
    [ -d "${SM_PROGRESS:-}" ] || return 0
    if [ -n "$2" ]; then echo "$1: $2" >"$SM_PROGRESS/$1"; else rm -f "$SM_PROGRESS/$1"; fi
}

# say TEXT: a line that stays.
say() {
    if [ -t 2 ]; then printf '\r\e[K%s\n' "$1" >&2; else printf '%s\n' "$1" >&2; fi
}

show_progress() {
    local start=$SECONDS parts text seconds pause=10 nothing
    [ ! -t 2 ] || pause=1
    # A pause without a process of its own, which would outlive the end.
    exec {nothing}<> <(:)
    # With whoever began it, however that ended.
    while ! read -rt "$pause" -u "$nothing" && [ -d "$SM_PROGRESS" ] && [ -d "/proc/$$" ]; do
        mapfile -t parts < <(cat "$SM_PROGRESS"/* 2>/dev/null)
        [ ${#parts[@]} -gt 0 ] || continue
        printf -v text '; %s' "${parts[@]}"
        seconds=$((SECONDS - start))
        printf -v text '[%d:%02d] %s' $((seconds / 60)) $((seconds % 60)) "${text:2}"
        if [ -t 2 ]; then printf '\r\e[K%s' "${text:0:${COLUMNS:-$(tput cols 2>/dev/null || echo 80)}}" >&2; else echo "$text" >&2; fi
    done
}

begin_progress() {
    [ -z "${SM_PROGRESS:-}" ] || return 0
    SM_PROGRESS=$(mktemp -d)
    export SM_PROGRESS
    show_progress 9>&- & # no lock of ours is its
    progress_shower=$!
}

end_progress() {
    [ -n "${progress_shower:-}" ] || return 0
    kill "$progress_shower" 2>/dev/null || true
    wait "$progress_shower" 2>/dev/null || true
    [ ! -t 2 ] || printf '\r\e[K' >&2
    rm -rf "$SM_PROGRESS"
    unset SM_PROGRESS progress_shower
}
