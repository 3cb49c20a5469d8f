# shellcheck shell=bash
# One call of gcloud at a time, each bounded in time: what its complaints mean, whether they pass, and what is waited for.
# Part of launch_tpu.sh, which says what was asked for (zone, place, poll, the limits in seconds, ...).

export CLOUDSDK_CORE_DISABLE_PROMPTS=1 # nobody answers a question

await() { # the last process in the background: a signal to this script need not wait for it
    local code=0
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}
pause() { sleep "$1" & await; }
product() { awk -v a="$1" -v b="$2" 'BEGIN {print a * b}'; }

cloud() { # seconds, and what gcloud is told: what it says is in the file out and in $complaint, its exit code in $code
    local limit=$1
    shift
    code=0 complaint=
    if $dry; then
        printf 'gcloud' && printf ' %q' "$@" && printf '\n'
        return
    fi
    "$bounded" -k 10 "$limit" gcloud "$@" </dev/null >out 2>err & await || code=$?
    [ "$code" -ne 0 ] || return 0
    # From the last ERROR on, for it may go on over several lines; in one.
    complaint=$(tail -n 20 err | awk '/^ERROR:/ {said = ""} NF {$1 = $1; said = said " " $0} END {print substr(said, 2)}')
    case $code in 124 | 137) complaint="no answer within $limit s${complaint:+, after: $complaint}" ;; esac
    return "$code"
}
queue() { cloud "$1" compute tpus queued-resources "${@:2}"; }
on() { cloud "$1" compute tpus tpu-vm ssh "$2" "${place[@]}" --worker="$3" --command="$4"; } # seconds, node, worker or all, command
on_all() { local node; for node in "${nodes[@]}"; do on "$1" "$node" all "$2" || return; done; }

kind() { # of $complaint: whether it passes, or what it is that does not
    case $complaint in
        'no answer within'* | *'HTTPError 50'* | *'HTTPError 429'* | *'Internal Server Error'* | *'Bad Gateway'* | *'Service Unavailable'* | \
            *'currently unavailable'* | *'Gateway Time'* | *UNAVAILABLE* | *DEADLINE_EXCEEDED* | *INTERNAL* | *ABORTED* | *'return code [255]'* | \
            *onnection* | *'timed out'* | *unreachable* | *'Max retries exceeded'* | *'name resolution'* | *'find the server'* | *'Broken pipe'* | \
            *[Rr]'ate limit'* | *RATE_LIMIT* | *'per minute'*) echo passing ;;
        *ALREADY_EXISTS* | *'already exists'*) echo exists ;;
        *[Qq]uota*) echo quota ;;
        *capacity* | *stockout* | *RESOURCE_EXHAUSTED*) echo capacity ;;
        *UNAUTHENTICATED* | *'auth login'* | *credentials*) echo signin ;;
        *PERMISSION_DENIED* | *'not have permission'*) echo forbidden ;;
        *'SSH agent'* | *ssh-add*) echo agent ;;
        *NOT_FOUND* | *INVALID_ARGUMENT* | *'invalid choice'* | *'unrecognized arguments'* | *'Invalid value'*) echo wrong ;;
        *) echo strange ;;
    esac
}
explain() { # ends with what gcloud's complaint means, and what to do
    case $(kind) in
        passing) die 1 "gcloud: $complaint" "that should pass: try again later; https://status.cloud.google.com says what is down" ;;
        quota) die 1 "quota: $complaint" "ask for more of $type in $zone (IAM & Admin, Quotas), or take another zone, a smaller type, or --spot, which has a quota of its own" ;;
        capacity) die 1 "no capacity: $complaint" "try again later, in another zone, or with --spot" ;;
        signin) die 1 "not signed in: $complaint" "gcloud auth login" ;;
        forbidden) die 1 "not allowed: $complaint" "is --project the right one? It needs the TPU API and the role TPU Admin" ;;
        agent) die 1 "ssh: $complaint" "ssh-add ~/.ssh/google_compute_engine" ;;
        *) die 1 "gcloud: $complaint" "are --zone $zone and --type ${type:-TYPE} right? gcloud compute tpus accelerator-types list --zone $zone" ;;
    esac
}

waits() { # for what (a word), and the same to be read: said at once, and now and then until it is over
    local now since=since_${1//[^A-Za-z]/_} told=told_${1//[^A-Za-z]/_}
    now=$(date +%s)
    if [ -z "${!since:-}" ]; then
        printf -v "$since" %s "$now"
        say "$2"
    elif [ $((now - ${!told})) -ge "$remind" ]; then
        say "$2 (for $(lasted $((now - ${!since}))) by now)"
    else
        return 0
    fi
    printf -v "$told" %s "$now"
}
over() { unset "since_${1//[^A-Za-z]/_}"; }
lasted() { if [ "$1" -ge 7200 ]; then echo "$(($1 / 3600)) h $(($1 % 3600 / 60)) min"; elif [ "$1" -ge 120 ]; then echo "$(($1 / 60)) min"; else echo "$1 s"; fi; }

odd=0
works() { odd=0; over "failed $1"; }
passes() { # what was tried: whether it can be tried again; ends where it would fail again, or has thrice for no known reason
    case $(kind) in
        passing) odd=0 ;;
        strange) odd=$((odd + 1)); [ "$odd" -lt 3 ] || explain ;;
        *) explain ;;
    esac
    waits "failed $1" "$1 failed, and is tried again: $complaint"
}
