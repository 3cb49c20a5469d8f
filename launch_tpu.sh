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
  --runtime VERSION    of the TPU's machine image (default: by type); where its Python is too old, uv brings one
  --env NAME=VALUE     set for the command; may be repeated
  --retries N          start a run that failed by itself again, so many times (default: 3): train on its host (that is
                       its --supervise N), then all on all hosts; never one that ended with 2, which says that the
                       command can't be
  --delete-after       give the slice back when the run has ended well
  --poll SECONDS       between two looks at the state (default: 20)
  --dry-run            print what would be run, as a script of bash, and run nothing

The run goes on when this script or the connection ends: the same line again follows it. A workdir must lie where a new
slice finds it (a mounted bucket, a network disk; not gs://...): the same command then goes on where it stopped. What
passes (a lost connection, an HTTP 503, a gcloud that hangs) is tried again, and what is waited for is said.

seconds, from the environment:
  MMJAX_LAUNCH_LOOK    that a look at the state or the hosts may take (default: 120)
  MMJAX_LAUNCH_ASK     that a request may take, to create the slice or to delete it (default: 600)
  MMJAX_LAUNCH_WORK    that copying and installing may take, each (default: 1800); and that hosts may go on where others
                       have failed
  MMJAX_LAUNCH_FOLLOW  that the log is followed between two looks (default: 300)
  MMJAX_LAUNCH_REMIND  until what is waited for is said again (default: 600)
TEXT
}

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { # exit code, what happened, what to do
    printf 'error: %s\n' "$2" >&2
    [ $# -eq 2 ] || printf '  %s\n' "${@:3}" >&2
    exit "$1"
}

# ---- what was asked for

name='' zone='' type='' project='' runtime='' action=run spot=false dry=false delete_after=false
slices=1 retries=3 poll=20
look_limit=${MMJAX_LAUNCH_LOOK:-120} ask_limit=${MMJAX_LAUNCH_ASK:-600} work_limit=${MMJAX_LAUNCH_WORK:-1800}
follow_limit=${MMJAX_LAUNCH_FOLLOW:-300} remind=${MMJAX_LAUNCH_REMIND:-600}
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

check_workdir() { # of the command: `--workdir DIR` or `--workdir=DIR`, also cut short, as argparse reads it
    local i word option dir
    for ((i = 0; i < ${#command[@]}; i++)); do
        word=${command[i]} option=${command[i]%%=*}
        [ "$word" != -- ] || return 0
        [[ $option == --w* && --workdir == "$option"* ]] || continue
        if [[ $word == *=* ]]; then dir=${word#*=}; else dir=${command[i + 1]:-}; fi
        if [[ $dir =~ ^[A-Za-z][A-Za-z0-9+.-]+:/ ]]; then
            die 2 "--workdir $dir: a workdir is a folder, and this is an address" \
                "mount the bucket on every host (gcsfuse), and give the folder: --workdir /mnt/bucket/run"
        fi
        [[ $dir == /* ]] ||
            say "--workdir $dir is relative, so it lies on the hosts' own disks: after a preemption the run starts anew"
    done
}

[ -n "$name" ] || die 2 "the slice needs a NAME" "./launch_tpu.sh NAME --zone ZONE --type TYPE -- train ..."
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] || die 2 "NAME=$name" "a slice's name has small letters, digits and -, a letter first"
[ -n "$zone" ] || die 2 "--zone is missing" "say where, --zone europe-west4-b; gcloud compute tpus locations list names them"
for number in "--slices $slices" "--retries $retries" "MMJAX_LAUNCH_REMIND $remind"; do
    [[ $number =~ \ [0-9]+$ ]] || die 2 "$number is no number"
done
for number in "--poll $poll" "MMJAX_LAUNCH_LOOK $look_limit" "MMJAX_LAUNCH_ASK $ask_limit" "MMJAX_LAUNCH_WORK $work_limit" \
    "MMJAX_LAUNCH_FOLLOW $follow_limit"; do
    [[ $number =~ \ [0-9]+(\.[0-9]+)?$ ]] || die 2 "$number is no number of seconds"
done
[ "$slices" -ge 1 ] || die 2 "--slices $slices must be at least 1"
for pair in "${env[@]+"${env[@]}"}"; do
    [[ $pair =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die 2 "--env $pair" "write NAME=VALUE"
done
if [ "$action" = run ]; then
    [ -n "$type" ] || die 2 "--type is missing" "say what, --type v5litepod-16; gcloud compute tpus accelerator-types list --zone $zone names them"
    [ ${#command[@]} -gt 0 ] || die 2 "there is no command" "give it after --, as in: -- train experiments/siglip.py --workdir DIR"
    check_workdir
fi
bounded=$(command -v timeout || command -v gtimeout || true)
if ! $dry; then
    command -v gcloud >/dev/null || die 2 "gcloud is not on the PATH" "install the Google Cloud CLI, then: gcloud auth login"
    [ -n "$bounded" ] || die 2 "timeout is not on the PATH" "it is one of GNU's coreutils; on a Mac: brew install coreutils"
fi

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
again="the same line again"

# ---- what calls gcloud, and makes and keeps the slice

root=$(cd "$(dirname "$0")" && pwd)
[ -f "$root/mmjax/runtime/tpu/cloud.sh" ] || die 2 "$root is no checkout of mmjax" "run launch_tpu.sh where it lies: it installs the checkout around it"
scratch=$(mktemp -d)
# shellcheck source=mmjax/runtime/tpu/cloud.sh
source "$root/mmjax/runtime/tpu/cloud.sh"
# shellcheck source=mmjax/runtime/tpu/slice.sh
source "$root/mmjax/runtime/tpu/slice.sh"
cd "$scratch"
child=
ends() { [ "$action" != run ] || say "this script ends; what it started goes on, and $again follows it"; }
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true; rm -rf "$scratch"' EXIT
trap 'ends; exit 130' INT
trap 'ends; exit 143' TERM

# ---- its hosts

pack() { # run.sh: a file, so that nothing on the way reads the command's quotes; and this checkout, as it is here
    local word
    {
        echo '#!/usr/bin/env bash'
        echo "cd ~/$folder"
        for word in "${env[@]+"${env[@]}"}"; do printf 'export %q\n' "$word"; done
        echo "told=; trap 'told=1' TERM"
        printf '.venv/bin/mmjax %q' "${command[0]}"
        # What dies on its host is started again there, at once; `watch` is for what that can't mend.
        [[ ${command[0]} != train || $retries -eq 0 || " ${command[*]} " == *" --supervise"* ]] || printf ' --supervise %q' "$retries"
        for word in "${command[@]:1}"; do printf ' %q' "$word"; done
        # A machine that goes down tells all its processes: the run then saves and ends well, but is not done.
        cat <<'TEXT'
 >run.log 2>&1
code=$?
[ -z "$told" ] || [ "$code" -ne 0 ] || code=143
echo "$code" >exit.part && mv exit.part exit
TEXT
    } >run.sh
    cp "$root/mmjax/runtime/tpu/install.sh" install.sh
    if $dry; then
        printf 'git -C %q ls-files -co --exclude-standard -z | tar -czf checkout.tgz -C %q --null -T -\n' "$root" "$root"
        for word in install.sh run.sh; do printf "cat >%s <<'MMJAX-FILE'\n%s\nMMJAX-FILE\n" "$word" "$(<"$word")"; done
        return
    fi
    { git -C "$root" ls-files -co --exclude-standard -z 2>/dev/null || (cd "$root" && find . -type f -print0); } |
        tar -czf checkout.tgz -C "$root" --null --ignore-failed-read -T - 2>err || # 1: a file changed while it was read
        [ $? -eq 1 ] || die 1 "$root can't be packed: $(tail -1 err)"
}

tried() { # what it is, and the call: up to three times, for a connection fails now and then; 1 where the slice is gone
    local attempt
    for attempt in 1 2 3; do
        "${@:2}" && return
        case $code in # the host's own, of install.sh: they would come again
            64 | 65) tail -n 20 out err >&2; die 1 "$1 failed with $code, which would come again" "the lines above say why; mend it, and run this line again; the slice is still there (--delete gives it back)" ;;
        esac
        [ "$attempt" -lt 3 ] || break
        say "$1 failed, and is tried again: $complaint"
        pause "$(product "$poll" "$attempt")"
        ! gone || return 1
    done
    tail -n 20 out >&2
    die 1 "could not reach the hosts of $name, or install on them: $1 failed three times: $complaint" "try: gcloud compute tpus tpu-vm ssh ${nodes[0]} ${place[*]}"
}
copy() { local node; for node in "${nodes[@]}"; do cloud "$work_limit" compute tpus tpu-vm scp checkout.tgz install.sh run.sh "$node:" "${place[@]}" --worker=all || return; done; }
start() {
    say "starting: mmjax ${command[*]}"
    tried "starting" on_all "$look_limit" "cd ~/$folder 2>/dev/null && [ -f run.sh ] && [ ! -f pid ] || exit 0; setsid nohup bash run.sh </dev/null >/dev/null 2>&1 & echo \$! >pid"
}
deploy() { # 1 where the slice was taken away meanwhile
    local commit
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo none)
    [ -z "$(git -C "$root" status --porcelain 2>/dev/null)" ] || commit+=" and what is not committed"
    say "installing this checkout (commit $commit) on all hosts: some minutes, $work_limit s at most"
    pack
    : >log
    tried "copying" copy && tried "installing" on_all "$work_limit" "bash install.sh $folder" && start
}

found=''
inspect() { # sets found: how the command ended on the hosts, each once: numbers, `running`, `lost` or `none`
    local node line
    found=''
    for node in "${nodes[@]}"; do
        on "$look_limit" "$node" all "cd ~/$folder 2>/dev/null || { echo mmjax-exit none; exit; }
if [ -f exit ]; then echo mmjax-exit \$(cat exit); elif [ ! -f pid ]; then echo mmjax-exit none
elif kill -0 \$(cat pid) 2>/dev/null; then echo mmjax-exit running; else echo mmjax-exit lost; fi" || return
        while read -r line; do
            case $line in *'mmjax-exit '?*) line=${line##*mmjax-exit } && [[ " $found" == *" $line "* ]] || found+="$line " ;; esac
        done <out
    done
    [ -n "$found" ] || { complaint="they say nothing of the run"; return 1; }
    over hosts
}
unanswered() { # what to say of it; ends where it would come again
    case $(kind) in agent | signin | forbidden) explain ;; esac
    waits hosts "the hosts of $name don't answer, and are asked again: $complaint"
}
known() { # inspects, for a while; 1 where the slice was taken away. What isn't known to have ended isn't touched.
    local attempt
    for ((attempt = 1; ; attempt++)); do
        inspect && return
        [ "$attempt" -lt 8 ] || die 1 "$name is there, but its hosts don't answer, so whether the run goes on can't be told: $complaint" \
            "nothing was changed; try: gcloud compute tpus tpu-vm ssh ${nodes[0]} ${place[*]}" "$again asks again"
        unanswered
        pause "$(product "$poll" "$attempt")"
        ! gone || return 1
    done
}
means() { # of the codes in $found, what isn't plain
    local word
    for word in $found; do
        case $word in
            137) echo "137: it was killed (SIGKILL): most likely its host's memory was full (sudo dmesg | grep -i oom says so), or somebody did kill -9" ;;
            143) echo "143: it was told to end (SIGTERM), as a machine that goes down tells all" ;;
            134) echo "134: it gave up (SIGABRT), as jax does where another host no longer answers" ;;
            139) echo "139: it crashed (SIGSEGV)" ;;
            lost) echo "lost: it is gone without an exit code: its host started anew, or all of it was killed" ;;
        esac
    done
}

follow() { # host 0's log from where it was left, until the run ends, the connection does, or it is time to look
    local reader remote
    remote="cd ~/$folder && while [ ! -f run.log ]; do sleep 0.2; done; timeout --foreground $follow_limit tail -c +$(($(wc -c <log) + 1)) -F run.log --pid=\$(cat pid) 2>/dev/null"
    if $dry; then on "$follow_limit" "${nodes[0]}" 0 "$remote"; return; fi
    mkfifo pipe
    "$bounded" -k 10 "$follow_limit" tee -a log <pipe & # what gcloud leaves behind may hold the pipe
    reader=$!
    "$bounded" -k 10 "$follow_limit" gcloud compute tpus tpu-vm ssh "${nodes[0]}" "${place[@]}" --worker=0 --command="$remote" </dev/null >pipe 2>err & await || true
    wait "$reader" || true
    rm -f pipe
}

# ---- the run

failures=0
failed() { # the run did; ends where that was once too often
    local node wait
    failures=$((failures + 1))
    say "the run ended with: ${found% }"
    means >&2
    for node in "${nodes[@]}"; do on "$look_limit" "$node" all "tail -n 20 ~/$folder/run.log" || true; cat out >&2; done
    [ "$failures" -le "$retries" ] ||
        die 1 "the run failed $failures times, at last with: ${found% }" "the last lines of each host stand above; --logs shows all of host 0's; the slice is still there"
    wait=$(product "$poll" "$failures")
    say "starting again in $wait s ($failures of $retries)"
    pause "$wait"
}

watch() { # until the slice is taken away (0), or the run is to be started again (1); ends with the run
    local had uneven=0 now word faults
    while :; do
        had=$(wc -c <log)
        follow
        ! gone || return 0
        if [ "$state" = MISSING ] || [ "$state" = DELETING ]; then pause "$poll"; continue; fi
        inspect || { unanswered; pause "$poll"; continue; }
        faults=
        for word in $found; do case $word in 0 | running) ;; *) faults+="$word " ;; esac; done
        if [[ " $found" == *' running '* ]]; then
            now=$(date +%s)
            if [ -z "$faults" ]; then
                uneven=0
                over uneven
                # Its log speaks for it, while it does.
                if [ "$(wc -c <log)" -gt "$had" ]; then over running; else waits running "the run goes on (${found% }); its log has nothing new"; fi
            else
                [ "$uneven" -gt 0 ] || uneven=$now
                waits uneven "the run goes on at some hosts, and at others it has ended with: ${faults% }"
                if [ $((now - uneven)) -ge "${work_limit%.*}" ]; then failed; return 1; fi
            fi
            pause "$poll"
            continue
        fi
        if [ -z "$faults" ]; then
            say "done"
            if ! $delete_after; then say "give the slice back: ./launch_tpu.sh $name --zone $zone --delete"; exit 0; fi
            until remove; do pause "$poll"; done
            exit 0
        fi
        [[ " $faults" != *' 2 '* ]] || die 2 "the command can't be: its message stands above" "mend it, and run this line again; the slice is still there (--delete gives it back)"
        failed
        return 1
    done
}

run() {
    while :; do
        ready
        if $dry; then deploy; follow; return; fi
        known || continue
        if [[ " $found" == *' running '* ]]; then
            say "$name is running already: following it"
            : >log
            [[ " $found" != *' none '* ]] || start || continue
        else
            deploy || continue
        fi
        until watch; do deploy || break; done
    done
}

: >log
case $action in
    status)
        seen
        echo "$name: $state"
        [ "$state" = ACTIVE ] || exit 0
        if inspect || inspect || inspect; then echo "run: $found"; means; else echo "run: the hosts don't answer: $complaint"; fi
        ;;
    logs)
        seen
        [ "$state" = ACTIVE ] || die 1 "$name is $state: there is no log to follow"
        while known || die 1 "$name was taken away"; do
            [ "$found" != 'none ' ] || die 1 "nothing was started on $name yet"
            follow
            [[ " $found" == *' running '* ]] || exit 0
            pause "$poll"
        done
        ;;
    delete) until remove; do pause "$poll"; done; $dry || say "$name is given back" ;;
    run) run ;;
esac
