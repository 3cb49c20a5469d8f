"""The supervisor starts again what died, and nothing else; and signals reach the run once."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.train import supervise

# Writes a line a start, and ends as the next of its arguments says: an exit code, or a signal's name.
LIVES = """
import os, signal, sys
from pathlib import Path
log = Path(sys.argv[1])
life = log.read_text().count("start") if log.exists() else 0
log.open("a").write("start\\n")
end = sys.argv[2 + life]
if end.isdecimal():
    sys.exit(int(end))
os.kill(os.getpid(), getattr(signal, end))
"""
FULL = " (most likely the machine's memory was full; or somebody did kill -9)"

# Waits for a signal, and then for another one, for half a second.
LISTENS = """
import signal, sys, time
heard = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
print("ready", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.5)
print(*heard, flush=True)
sys.exit(0)
"""

# The supervisor as a process: python -c SUPERVISES RESTARTS PAUSE WORDS... It passes signals on a little late: two of a
# kind that come at once are one.
SUPERVISES = """
import subprocess, sys, time
from mmjax.train.supervise import supervise
send = subprocess.Popen.send_signal
subprocess.Popen.send_signal = lambda self, number: (time.sleep(0.1), send(self, number))
sys.exit(supervise(sys.argv[3:], int(sys.argv[1]), pause=float(sys.argv[2])))
"""


def lived(folder: Path, restarts: int, *ends: str) -> tuple[int, int, list[str]]:
    """The exit code, how often it was started, and what was said."""
    said: list[str] = []
    log = folder / "log"
    code = supervise.supervise([sys.executable, "-c", LIVES, str(log), *ends], restarts, pause=0.01, say=said.append)
    return code, log.read_text().count("start"), said


def test_what_dies_is_started_again_until_it_ends(tmp_path):
    code, starts, said = lived(tmp_path, 5, "SIGKILL", "1", "SIGABRT", "0")
    assert (code, starts) == (0, 4)
    assert said == [
        f"the run ended by SIGKILL{FULL}: starting it again in 0.01 s (1 of 5 times)",
        "the run ended with exit code 1: starting it again in 0.02 s (2 of 5 times)",
        "the run ended by SIGABRT: starting it again in 0.04 s (3 of 5 times)",
    ]


def test_no_more_often_than_was_said(tmp_path):
    code, starts, said = lived(tmp_path, 2, "1", "1", "SIGKILL", "0")
    assert (code, starts) == (137, 3)
    assert said[-1] == f"the run ended by SIGKILL{FULL}, after 2 new starts: it is not started again"


def test_an_exit_code_is_not_taken_for_a_signal(tmp_path):
    code, starts, said = lived(tmp_path, 1, "255", "200")
    assert (code, starts) == (200, 2)
    assert [line.partition(": ")[0] for line in said] == [
        "the run ended with exit code 255",
        "the run ended with exit code 200, after 1 new starts",
    ]


@pytest.mark.parametrize("end", ["0", "2", "130"])
def test_an_end_an_error_that_would_come_again_and_ctrl_c_are_the_last_word(tmp_path, end):
    assert lived(tmp_path, 3, end, "0") == (int(end), 1, [])


def test_the_pause_grows_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "LONGEST", 0.03)
    said = lived(tmp_path, 4, *["1"] * 5)[2]
    assert [line.partition(" again in ")[2].split()[0] for line in said[:4]] == ["0.01", "0.02", "0.03", "0.03"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run_once_and_its_end_counts(number):
    command = [sys.executable, "-c", SUPERVISES, "3", "0.1", sys.executable, "-c", LISTENS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        try:
            assert process.communicate(timeout=20)[0] == f"{number.name}\n"
            assert process.wait(10) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # both, if the signal got lost


def test_sigterm_before_the_run_hears_signals_is_an_end_without_fault():
    words = ["3", "0.1", sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    with subprocess.Popen([sys.executable, "-c", SUPERVISES, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_ctrl_c_on_a_terminal_which_reaches_both_is_heard_once():
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover (the child)
        os.execv(sys.executable, [sys.executable, "-c", SUPERVISES, "3", "0.1", sys.executable, "-c", LISTENS])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 100)
    os.write(terminal, b"\x03")
    try:
        while True:
            said += os.read(terminal, 100)
    except OSError:  # the terminal is closed: all have ended
        pass
    assert said.decode().replace("^C", "").split() == ["ready", "SIGINT"]  # the key is echoed somewhere between
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_signal_during_the_pause_ends_it(tmp_path):
    words = ["3", "60", sys.executable, "-c", LIVES, str(tmp_path / "log"), "1", "0"]
    with subprocess.Popen([sys.executable, "-c", SUPERVISES, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "starting it again in 60 s" in process.stderr.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
        assert time.monotonic() - began < 5
        assert "stopped before it was started again" in process.stderr.read()


def test_a_number_that_cannot_be_is_refused(capsys):
    with pytest.raises(UserError, match="--supervise 0: how often the run may be started again, at least 1"):
        supervise.supervise(["true"], 0)
    assert main(["train", "nothing.py", "--workdir", "x", "--supervise", "0"]) == 2
    assert "--supervise 0" in capsys.readouterr().err


def test_a_wrong_command_line_is_told_at_once(tmp_path, capfd):
    assert main(["train", str(tmp_path / "nothing.py"), "--supervise", "3", "--workdir", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert "nothing.py" in said
    assert "starting it again" not in said
