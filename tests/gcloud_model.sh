# shellcheck shell=bash
# A cloud in which no time passes, for launch_tpu.sh to be run in ($BASH_ENV): functions stand in for gcloud and for all
# that knows the time. $MODEL is its folder; there `draws` holds words, and each call of gcloud takes the next one, and
# after them $MODEL_THEN for ever (empty: all is well). What must never be is written to `wrong`.
#
#   ok, hang (no answer, no effect), late (no answer, but it takes effect), 503, 255, strange (all: no effect),
#   EXISTS (create), NONE, EMPTY, ODD (describe: says that there is none, no state, a state that nobody knows),
#   FAILED, SUSPENDED, DELETED (what becomes of the slice before the call),
#   ended-N, uneven-N, vanished (what becomes of a run before the call: it ends with N at all hosts, or at one; is lost)

: "${MODEL:?}"
got() { local text=''; [ ! -f "$MODEL/$1" ] || text=$(<"$MODEL/$1"); echo "$text"; }
put() { echo "$2" >"$MODEL/$1"; }
clock() { local t; read -r t <"$MODEL/clock"; echo "$t"; }
passes_by() { # seconds; ends all at the horizon
    local t
    read -r t <"$MODEL/clock"
    t=$((t + ${1%.*}))
    put clock "$t"
    if [ "$t" -gt "$MODEL_HORIZON" ]; then put horizon "$t"; kill -KILL $$; fi
}
date() { case $1 in +%s) clock ;; *) clock ;; esac; }
sleep() { passes_by "$1"; }
tar() { :; }
git() { :; }
tee() { cat; }
awk() { echo 20; }
tail() { command tail "$@"; }
timeout() { # -k 10 SECONDS gcloud ...
    local code=0
    "${@:4}" || code=$?
    [ "$code" -ne 111 ] || { passes_by "$3"; return 124; }
    return "$code"
}

drawn() { # the word for this call
    local words word
    words=$(got draws)
    word=${words%% *}
    if [ -z "$word" ]; then echo "${MODEL_THEN:-ok}"; return; fi
    if [[ $words == *" "* ]]; then put draws "${words#* }"; else put draws ''; fi
    echo "$word"
}

gcloud() {
    local verb=$4 word slice run told="$*"
    word=$(drawn)
    slice=$(got slice) run=$(got run)
    put calls "$(($(got calls) + 1))"
    echo "$(clock) $verb $word slice=$slice run=$run" >>"$MODEL/history"
    [ "$(got calls)" -lt 5000 ] || { echo "no end of calls" >>"$MODEL/wrong"; kill -KILL $$; }
    passes_by 3
    case $word in # what becomes of things
        FAILED | SUSPENDED) [ "$slice" = NONE ] || { slice=$word run=none; } ;;
        DELETED) slice=NONE run=none ;;
        ended-*) [ "$run" != running ] || run=${word#*-} ;;
        uneven-*) [ "$run" != running ] || run="${word#*-} running" ;;
        vanished) [ "$run" != running ] || run=lost ;;
    esac
    put slice "$slice"; put run "$run"
    case $word in # what of the call
        hang) return 111 ;;
        503) echo "ERROR: (gcloud.x) HTTPError 503: The service is currently unavailable." >&2; return 1 ;;
        255) echo "ERROR: (gcloud.x) [/usr/bin/ssh] exited with return code [255]." >&2; return 255 ;;
        strange) echo "ERROR: (gcloud.x) gcloud crashed (KeyError): 'x'" >&2; return 1 ;;
    esac
    "does_$verb" "$word" "$slice" "$run" "$told" || return
    [ "$word" != late ] || return 111
}
none() { echo "ERROR: (gcloud.x) NOT_FOUND: Resource 'tpu' was not found" >&2; return 1; }
does_describe() {
    case $1 in NONE) none; return ;; EMPTY) echo; return ;; ODD) echo HIBERNATING; return ;; esac
    [[ $4 != *failedData* ]] || return 0
    [ "$2" != NONE ] || { none; return; }
    [ "$2" != ACTIVE ] || put unmet 0
    echo "$2"
    case $2 in WAITING_FOR_RESOURCES) put slice PROVISIONING ;; PROVISIONING) put slice ACTIVE ;; esac
}
does_create() {
    if [ "$1" = EXISTS ] || [ "$2" != NONE ]; then
        echo "ERROR: (gcloud.x) ALREADY_EXISTS: Resource 'projects/p/locations/z/nodes/tpu' already exists" >&2
        return 1
    fi
    put unmet "$(($(got unmet) + 1))"
    [ "$(got unmet)" -le 3 ] || echo "asked for more than three times, without a word" >>"$MODEL/wrong"
    put slice WAITING_FOR_RESOURCES; put run none
}
does_delete() {
    [[ $2 != ACTIVE || $3 != *running* ]] || echo "deleted a slice on which the run goes on" >>"$MODEL/wrong"
    [ "$2" != NONE ] || { none; return; }
    put slice NONE; put run none
}
does_scp() { reached "$2"; }
reached() { [ "$1" = ACTIVE ] || { echo "ERROR: (gcloud.x) TPU is in state $1" >&2; return 1; }; }
does_ssh() {
    reached "$2" || return
    case $4 in
        *'bash install.sh'*)
            [ "$3" != running ] || echo "installed over a run that goes on" >>"$MODEL/wrong"
            put run none; put installed yes ;;
        *setsid*) [ "$3" != none ] || put run running ;;
        *mmjax-exit*) for word in $3; do echo "mmjax-exit $word"; done ;;
        *'tail -c'*)
            [ "$3" = running ] || { [[ $3 != *running* ]] || passes_by 300; return 0; }
            echo "step"
            put steps "$(($(got steps) + 1))"
            if [ "$(got steps)" -ge "$MODEL_STEPS" ]; then put run 0; else passes_by 300; fi ;;
    esac
}
