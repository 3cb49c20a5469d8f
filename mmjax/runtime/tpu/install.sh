#!/usr/bin/env bash
# Runs on each host of a slice, from its home, where launch_tpu.sh has put this file, checkout.tgz and run.sh: installs
# the checkout in the folder that is named. It ends with 64 where no Python can be had, with 65 where the packages can't
# be installed and a second try would end alike, and with another code where it may go better.
set -e
mkdir -p "$1"
cd "$1"
exec 9>.install.lock
! command -v flock >/dev/null || flock 9 # one that was thought to hang may be at it still
if [ -f pid ]; then # what is left of a run before, which may hold the TPU
    pkill -s "$(cat pid)" || true
    for ((seconds = 0; seconds < 60; seconds++)); do pgrep -s "$(cat pid)" >/dev/null || break; sleep 1; done
    pkill -KILL -s "$(cat pid)" || true
fi
rm -f exit pid run.log
tar -xzf ~/checkout.tgz
cp ~/run.sh run.sh

make_environment() { # of the image's Python where it is new enough (its venv may lack pip), else of one that uv brings
    local python uv
    for python in python3.13 python3.12 python3.11 python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        rm -rf .venv
        if "$python" -m venv .venv; then return 0; fi
    done
    rm -rf .venv
    echo "no Python of 3.11 or newer here that makes environments: uv brings one"
    export PATH="$HOME/.local/bin:$PATH"
    uv=$(command -v uv) || python3 -m pip install -q --user uv || curl -LsSf https://astral.sh/uv/install.sh | sh
    uv=$(command -v uv) && "$uv" venv -q --seed --python 3.12 .venv
}

if [ ! -x .venv/bin/pip ]; then # it comes last
    make_environment || {
        echo "mmjax needs a Python of 3.11 or newer; the image has $(python3 --version 2>&1), and uv could not bring one: choose a newer --runtime, or let the hosts reach pypi.org and github.com" >&2
        exit 64
    }
fi
.venv/bin/pip install -q -e '.[tpu]' 2>&1 | tee pip.log
code=${PIPESTATUS[0]}
[ "$code" -eq 0 ] && exit
! grep -qE 'No matching distribution|ResolutionImpossible|requires a different Python|No space left on device' pip.log || code=65
exit "$code"
