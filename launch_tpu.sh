#!/usr/bin/env bash
# Runs one mmjax command on every host of a TPU slice that it creates, and comes back after a preemption. See --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
Runs one mmjax command on every host of a TPU slice, and comes back after a preemption.

  ./launch_tpu.sh NAME --zone ZONE --type TYPE [options] -- COMMAND...   create, install, run, follow the log
  ./launch_tpu.sh NAME --zone ZONE --status                              the slice's state, and whether the run has ended
  ./launch_tpu.sh NAME --zone ZONE --logs                                host 0's log, as it grows
  ./launch_tpu.sh NAME --zone ZONE --delete                              give the slice back

examples:
  ./launch_tpu.sh siglip --zone europe-west4-b --type v5litepod-256 --spot -- \
      train experiments/siglip.py --workdir /mnt/bucket/siglip
  ./launch_tpu.sh siglip --zone europe-west4-b --type v5litepod-256 --dry-run -- train experiments/siglip.py --workdir w

options:
  --spot               cheaper, and taken away at any time
  --slices N           so many slices of that type, as one run (default: 1)
  --project PROJECT    default: gcloud's own
  --runtime VERSION    of the TPU's machine image (default: by type)
  --env NAME=VALUE     set for the command; may be repeated
  --retries N          start a run that failed by itself again, so many times (default: 3): train on its host (that is
                       its --supervise N), then all on all hosts; never one that ended with 2, which says that the
                       command can't be
  --delete-after       give the slice back when the run has ended well
  --poll SECONDS       between two looks at the state (default: 20)
  --dry-run            print what would be run, and run nothing

The run goes on when this script or the connection ends: the same line again follows it. A workdir must lie where a new
slice finds it (a mounted bucket, a network disk): the same command then goes on where it stopped.
TEXT
}

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { # exit code, what happened, what to do
    printf 'error: %s\n' "$2" >&2
    printf '  %s\n' "${@:3}" >&2
    exit "$1"
}

name='' zone='' type='' project='' runtime='' action=run spot=false dry=false delete_after=false
slices=1 retries=3 poll=20
env=() command=()
value() { [ $# -ge 2 ] || die 2 "$1 needs a value" "see ./launch_tpu.sh --help"; }
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --zone) value "$@"; zone=$2; shift ;;
        --type) value "$@"; type=$2; shift ;;
        --project) value "$@"; project=$2; shift ;;
        --runtime) value "$@"; runtime=$2; shift ;;
        --slices) value "$@"; slices=$2; shift ;;
        --retries) value "$@"; retries=$2; shift ;;
        --poll) value "$@"; poll=$2; shift ;;
        --env) value "$@"; env+=("$2"); shift ;;
        --spot) spot=true ;;
        --dry-run) dry=true ;;
        --delete-after) delete_after=true ;;
        --status | --logs | --delete) action=${1#--} ;;
        --) shift; command=("$@"); break ;;
        -*) die 2 "there is no option $1" "see ./launch_tpu.sh --help" ;;
        *) [ -z "$name" ] || die 2 "$1: the command stands after --" "./launch_tpu.sh NAME ... -- train ..."; name=$1 ;;
    esac
    shift
done

[ -n "$name" ] || die 2 "the slice needs a NAME" "./launch_tpu.sh NAME --zone ZONE --type TYPE -- train ..."
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] || die 2 "NAME=$name" "a slice's name has small letters, digits and -, a letter first"
[ -n "$zone" ] || die 2 "--zone is missing" "say where, --zone europe-west4-b; gcloud compute tpus locations list names them"
for number in "--slices $slices" "--retries $retries"; do
    [[ $number =~ \ [0-9]+$ ]] || die 2 "$number is no number"
done
[[ $poll =~ ^[0-9]+(\.[0-9]+)?$ ]] || die 2 "--poll $poll is no number of seconds"
[ "$slices" -ge 1 ] || die 2 "--slices $slices must be at least 1"
for pair in "${env[@]+"${env[@]}"}"; do
    [[ $pair =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die 2 "--env $pair" "write NAME=VALUE"
done
if [ "$action" = run ]; then
    [ -n "$type" ] || die 2 "--type is missing" "say what, --type v5litepod-16; gcloud compute tpus accelerator-types list --zone $zone names them"
    [ ${#command[@]} -gt 0 ] || die 2 "there is no command" "give it after --, as in: -- train experiments/siglip.py --workdir DIR"
fi
$dry || command -v gcloud >/dev/null || die 2 "gcloud is not on the PATH" "install the Google Cloud CLI, then: gcloud auth login"

case $type in
    v5litepod*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v5p*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v6e*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    *) : "${runtime:=tpu-ubuntu2204-base}" ;;
esac
place=(--zone "$zone")
[ -z "$project" ] || place+=(--project "$project")
folder=mmjax-$name # on each host, in its home
if [ "$slices" -eq 1 ]; then nodes=("$name"); else nodes=(); for ((i = 0; i < slices; i++)); do nodes+=("$name-$i"); done; fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cloud() { # gcloud, or with --dry-run what it would be told
    if $dry; then
        printf 'gcloud' && printf ' %q' "$@" && printf '\n'
    else
        gcloud "$@"
    fi
}
queue() { cloud compute tpus queued-resources "$@"; }
on() { # node, worker (a number or all), command
    cloud compute tpus tpu-vm ssh "$1" "${place[@]}" --worker="$2" --command="$3"
}
on_all() { local node; for node in "${nodes[@]}"; do on "$node" all "$1" || return; done; }

state() { # of the queued resource; MISSING where there is none
    local found
    if found=$(gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format='value(state.state)' 2>"$scratch/err"); then
        printf '%s\n' "$found"
    elif grep -qiE 'NOT_FOUND|not found' "$scratch/err"; then
        echo MISSING
    else
        explain
    fi
}

explain() { # ends with what gcloud's complaint means, and what to do
    local said
    said=$(grep -vE '^$' "$scratch/err" | tail -3)
    case $said in
        *[Qq]uota*) die 1 "quota: $said" "ask for more of $type in $zone (IAM & Admin, Quotas), or take another zone, a smaller type, or --spot, which has a quota of its own" ;;
        *capacity* | *stockout* | *RESOURCE_EXHAUSTED*) die 1 "no capacity: $said" "try again later, in another zone, or with --spot" ;;
        *UNAUTHENTICATED* | *'auth login'* | *credentials*) die 1 "not signed in: $said" "gcloud auth login" ;;
        *PERMISSION_DENIED*) die 1 "not allowed: $said" "is --project the right one? It needs the TPU API and the role TPU Admin" ;;
        *) die 1 "gcloud: $said" "are --zone $zone and --type $type right? gcloud compute tpus accelerator-types list --zone $zone" ;;
    esac
}

create() {
    local options=(--accelerator-type "$type" --runtime-version "$runtime" "${place[@]}")
    if [ "$slices" -eq 1 ]; then options+=(--node-id "$name"); else options+=(--node-count "$slices" --node-prefix "$name"); fi
    $spot && options+=(--spot)
    say "creating $name: $slices x $type in $zone"
    if $dry; then queue create "$name" "${options[@]}"; return; fi
    queue create "$name" "${options[@]}" >&2 2>"$scratch/err" || { grep -q ALREADY_EXISTS "$scratch/err" || explain; }
}

remove() {
    queue delete "$name" "${place[@]}" --force --quiet 2>"$scratch/err" || { $dry || grep -qiE 'NOT_FOUND|not found' "$scratch/err" || explain; }
}

ready() { # creates the slice where there is none, and waits for it
    local now='' before=''
    if $dry; then create; return; fi
    while :; do
        now=$(state)
        [ "$now" = "$before" ] || say "$name is $now"
        case $now in
            ACTIVE) return ;;
            MISSING) create ;;
            SUSPENDED | FAILED)
                if [ "$now" = FAILED ] && [ -n "$before" ] && [ "$before" != MISSING ]; then
                    gcloud compute tpus queued-resources describe "$name" "${place[@]}" >"$scratch/err" 2>&1 || true
                    remove
                    echo 'no capacity, by its state FAILED' >>"$scratch/err"
                    explain
                fi
                say "$name was taken away; asking for another"
                remove
                ;;
        esac
        before=$now
        sleep "$poll"
    done
}

install() { # this checkout, as it is here, on every host
    local root commit
    root=$(cd "$(dirname "$0")" && pwd)
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo none)
    [ -z "$(git -C "$root" status --porcelain 2>/dev/null)" ] || commit+=" and what is not committed"
    say "installing this checkout (commit $commit) on all hosts"
    (cd "$root" && { git ls-files -co --exclude-standard -z 2>/dev/null || find . -type f -print0; }) |
        (cd "$root" && tar -czf "$scratch/checkout.tgz" --null --ignore-failed-read -T - 2>/dev/null)
    { # a file, so that nothing on the way reads the command's quotes
        echo '#!/usr/bin/env bash'
        echo "cd ~/$folder"
        for pair in "${env[@]+"${env[@]}"}"; do printf 'export %q\n' "$pair"; done
        echo "told=; trap 'told=1' TERM"
        printf '.venv/bin/mmjax %q' "${command[0]}"
        # What dies on its host is started again there, at once; the loop below is for what that can't mend.
        [[ ${command[0]} != train || $retries -eq 0 || " ${command[*]} " == *" --supervise"* ]] || printf ' --supervise %q' "$retries"
        for word in "${command[@]:1}"; do printf ' %q' "$word"; done
        # A machine that goes down tells all its processes: the run then saves and ends well, but is not done.
        cat <<'TEXT'
 >run.log 2>&1
code=$?
[ -z "$told" ] || [ "$code" -ne 0 ] || code=143
echo "$code" >exit
TEXT
    } >"$scratch/run.sh"
    local node
    for node in "${nodes[@]}"; do
        tried cloud compute tpus tpu-vm scp "$scratch/checkout.tgz" "$scratch/run.sh" "$node:" "${place[@]}" --worker=all
    done
    tried on_all "set -e; mkdir -p ~/$folder; cd ~/$folder; [ ! -f pid ] || pkill -s \$(cat pid) || true
rm -f exit pid run.log; tar -xzf ~/checkout.tgz; mv ~/run.sh run.sh
python=; for p in python3.13 python3.12 python3.11 python3; do
  if command -v \$p >/dev/null && \$p -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python=\$p; break; fi; done
if [ -z \"\$python\" ]; then echo 'no Python of 3.11 or newer: choose a newer --runtime' >&2; exit 64; fi
[ -x .venv/bin/python ] || \$python -m venv .venv; .venv/bin/pip install -q -e '.[tpu]'"
}

tried() { # a connection fails now and then: three times in a row is more than that
    local attempt
    for attempt in 1 2 3; do
        "$@" >&2 && return
        [ "$attempt" -eq 3 ] || { say "that failed; once more"; sleep "$poll"; }
        gone && return 0
    done
    die 1 "could not reach the hosts of $name, or install on them" "the lines above say why; try: gcloud compute tpus tpu-vm ssh ${nodes[0]} ${place[*]}"
}

gone() { $dry && return 1; [ "$(state)" != ACTIVE ]; }

start() {
    say "starting: mmjax ${command[*]}"
    tried on_all "cd ~/$folder && [ -f pid ] || { setsid nohup bash run.sh </dev/null >/dev/null 2>&1 & echo \$! >pid; }"
}

codes() { # how the command ended on each host: numbers, `running` or `none`
    local node
    for node in "${nodes[@]}"; do
        on "$node" all "cd ~/$folder 2>/dev/null || { echo mmjax-exit none; exit; }
if [ -f exit ]; then echo mmjax-exit \$(cat exit); elif [ -f pid ] && kill -0 \$(cat pid) 2>/dev/null; then echo mmjax-exit running
else echo mmjax-exit none; fi" 2>/dev/null || return
    done | sed -n 's/.*mmjax-exit //p' | sort -u | tr '\n' ' '
}

follow() { # host 0's log from where it was left, until the run ends or the connection does
    touch "$scratch/log"
    on "${nodes[0]}" 0 "cd ~/$folder && while [ ! -f run.log ]; do sleep 0.2; done; tail -c +$(($(wc -c <"$scratch/log") + 1)) -F run.log --pid=\$(cat pid) 2>/dev/null" 2>/dev/null |
        tee -a "$scratch/log" || true
}

run() {
    local found failures=0 pause
    while :; do
        ready
        found=''
        $dry || found=$(codes) || found=''
        case $found in
            *running*) say "$name is running already: following it" ;;
            *) : >"$scratch/log"; install; start ;;
        esac
        $dry && { follow; return; }
        while :; do
            follow
            if gone; then say "$name was taken away"; break; fi
            found=$(codes) || { say "lost the connection; once more"; sleep "$poll"; continue; }
            case " $found" in
                *running*) sleep "$poll"; continue ;;
                ' 0 ')
                    say "done"
                    if $delete_after; then remove; else say "give the slice back: ./launch_tpu.sh $name --zone $zone --delete"; fi
                    return
                    ;;
                *' 2 '*) die 2 "the command can't be: its message stands above" "mend it, and run this line again; the slice is still there (--delete gives it back)" ;;
            esac
            failures=$((failures + 1))
            say "the run ended with: $found"
            on_all "tail -n 20 ~/$folder/run.log" >&2 || true
            [ "$failures" -le "$retries" ] ||
                die 1 "the run failed $failures times" "the last lines of each host stand above; --logs shows all of host 0's; the slice is still there"
            pause=$(awk -v poll="$poll" -v times="$failures" 'BEGIN {print poll * times}')
            say "starting again in $pause s ($failures of $retries)"
            sleep "$pause"
            break
        done
    done
}

case $action in
    status)
        now=$(state)
        echo "$name: $now"
        [ "$now" != ACTIVE ] || echo "run: $(codes)"
        ;;
    logs) follow ;;
    delete) remove; say "$name is given back" ;;
    run)
        [[ " ${command[*]} " != *" --workdir "* || " ${command[*]} " == *" --workdir /"* || " ${command[*]} " == *" --workdir gs://"* ]] ||
            say "the workdir is relative, so it lies on the hosts' own disks: after a preemption the run starts anew"
        run
        ;;
esac
