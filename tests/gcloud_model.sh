# shellcheck shell=bash
# A cloud in which no time passes, for launch_tpu.sh to be run in ($BASH_ENV): functions stand in for gcloud and for all
# that knows the time. $MODEL is its folder; there `draws` holds words, a line each: each call of gcloud takes the next,
# and after them $MODEL_THEN for ever (empty: all is well). What must never be is written to `wrong`.
#
#   ok, hang (no answer, no effect), late (no answer, but it takes effect), 503, 255, strange (all: no effect),
#   EXISTS (create), NONE, EMPTY, ODD (describe: says that there is none, no state, a state that nobody knows),
#   quota (a final no), stay (describe: the state stays what it is),
#   FAILED, SUSPENDED, DELETED (what becomes of the slice before the call),
#   ended-N, uneven-N, vanished (what becomes of a run before the call: it ends with N at all hosts, or at one; is lost)
# `slice` holds its state, `run` none, running, lost, or exit codes, as the hosts say them.

# shellcheck disable=SC2034  # `got` sets them by name
: "${MODEL:?}"
got() { IFS= read -r "$1" <"$MODEL/$1" || true; } # sets the variable of the file's name: no process for it
put() { printf '%s\n' "$2" >"$MODEL/$1"; }
passes_by() { # seconds; ends all at the horizon
    local clock
    got clock
    clock=$((clock + ${1%.*}))
    put clock "$clock"
    if [ "$clock" -gt "$MODEL_HORIZON" ]; then put horizon "$clock"; kill -KILL $$; fi
}
date() { local clock; got clock; echo "$clock"; }
sleep() { passes_by "$1"; }
awk() { if [ "$1" = -v ]; then local a=${2#a=} b=${4#b=}; echo $((a * b)); else command awk "$@"; fi; }
tar() { :; }
git() { :; }
tee() { local line; while read -r line; do echo "$line"; echo "$line" >>"$2"; done; }
timeout() { # -k 10 SECONDS gcloud ...
    local code=0
    "${@:4}" || code=$?
    [ "$code" -ne 111 ] || { passes_by "$3"; return 124; }
    return "$code"
}

gcloud() {
    local verb=$4 told="$*" draws clock slice run calls unmet word
    got draws; got clock; got slice; got run; got calls; got unmet
    word=${draws%% *}
    if [ -z "$word" ]; then word=${MODEL_THEN:-ok}; elif [[ $draws == *" "* ]]; then put draws "${draws#* }"; else put draws ''; fi
    put calls $((calls + 1))
    [ "$calls" -lt 9000 ] || { echo "no end of calls" >>"$MODEL/wrong"; kill -KILL $$; }
    echo "$clock $verb $word slice=$slice run=$run" >>"$MODEL/history"
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
        quota) echo "ERROR: (gcloud.x) RESOURCE_EXHAUSTED: Quota limit 'TPUs' has been exceeded." >&2; return 1 ;;
        strange) echo "ERROR: (gcloud.x) gcloud crashed (KeyError): 'x'" >&2; return 1 ;;
    esac
    "does_$verb" || return
    [ "$word" != late ] || return 111
}
none() { echo "ERROR: (gcloud.x) NOT_FOUND: Resource 'tpu' was not found" >&2; return 1; }
does_describe() {
    case $word in NONE) none; return ;; EMPTY) echo; return ;; ODD) echo HIBERNATING; return ;; esac
    [[ $told != *failedData* ]] || return 0
    [ "$slice" != NONE ] || { none; return; }
    [ "$slice" != ACTIVE ] || put unmet 0
    echo "$slice"
    [ "$word" != stay ] || return 0
    case $slice in WAITING_FOR_RESOURCES) put slice PROVISIONING ;; PROVISIONING) put slice ACTIVE ;; DELETING) put slice NONE ;; SUSPENDING) put slice SUSPENDED ;; esac
}
does_create() {
    if [ "$word" = EXISTS ] || [ "$slice" != NONE ]; then
        echo "ERROR: (gcloud.x) ALREADY_EXISTS: Resource 'projects/p/locations/z/nodes/tpu' already exists" >&2
        return 1
    fi
    put unmet $((unmet + 1))
    [ "$unmet" -lt 3 ] || echo "asked for more than three times in a row" >>"$MODEL/wrong"
    put slice WAITING_FOR_RESOURCES; put run none
}
does_delete() {
    [[ $slice != ACTIVE || $run != *running* ]] || echo "deleted a slice on which the run goes on" >>"$MODEL/wrong"
    [ "$slice" != NONE ] || { none; return; }
    put slice NONE; put run none
}
reached() { [ "$slice" = ACTIVE ] || { echo "ERROR: (gcloud.x) TPU is in state $slice" >&2; return 1; }; }
does_scp() { reached; }
does_ssh() {
    local code steps
    reached || return
    case $told in
        *'bash install.sh'*)
            [ "$run" != running ] || echo "installed over a run that goes on" >>"$MODEL/wrong"
            put run none ;;
        *setsid*) [ "$run" != none ] || put run running ;;
        *mmjax-exit*) for code in $run; do echo "mmjax-exit $code"; done ;;
        *'tail -c'*)
            [ "$run" = running ] || {
                [[ $run != *running* ]] || passes_by 300
                [ "$run" != '0 running' ] || put run 0 # the others follow soon
                [ "$run" != 'none running' ] || put run '1 running' # they wait in vain
                return 0
            }
            got steps
            put steps $((steps + 1))
            [ $((steps % 2)) -eq 0 ] || echo "step" # it isn't told at every look
            if [ "$steps" -ge "$MODEL_STEPS" ]; then put run 0; else passes_by 300; fi ;;
    esac
}
