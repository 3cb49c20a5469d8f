"""launch_tpu.sh, whatever gcloud answers, in any order: it ends with a reason, or says again and again what it waits for."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
HOUR = 3600
HORIZON = 12 * HOUR  # of the model's clock: what goes on until then is taken to go on for ever
SILENCE = 600 + 1800 + 300  # seconds between two words: until a reminder is due, the longest call, a look at the log
WHERE = ["tpu", "--zone", "z", "--type", "v5litepod-16"]
TRAIN = ["train", "experiments/siglip.py", "--workdir", "/mnt/shared/run"]

PASSING = ["hang", "late", "503", "255"]
SLICE = ["FAILED", "SUSPENDED", "EXISTS", "NONE", "EMPTY", "ODD", "strange"]
RUN = ["ended-1", "ended-137", "ended-0", "ended-2", "uneven-1", "vanished"]
WORDS = st.one_of(st.just("ok"), st.sampled_from(PASSING), st.sampled_from(SLICE), st.sampled_from(RUN))


@dataclass(frozen=True)
class Seen:
    """How it ended (None: at the horizon), what it said and when (seconds of the model's clock), and the model's files."""

    code: int | None
    lines: list[tuple[int, str]]
    clock: int
    wrong: str
    files: dict[str, str]
    text: str


def launched(draws: list[str], then: str = "", slice: str = "NONE", run: str = "none", poll: int = 20) -> Seen:
    """Runs the launcher in the model, where the slice and the run are in these states."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        start = {"draws": " ".join(draws), "slice": slice, "run": run, "clock": "0", "calls": "0", "unmet": "0"}
        start["steps"] = "0"
        for name, text in start.items():
            (model / name).write_text(f"{text}\n")
        settings = {"BASH_ENV": str(ROOT / "tests" / "gcloud_model.sh"), "MODEL": folder, "MODEL_THEN": then}
        settings |= {"MODEL_HORIZON": str(HORIZON), "MODEL_STEPS": "3", "TMPDIR": folder}
        bash = shutil.which("bash") or "bash"
        arguments = [bash, str(ROOT / "launch_tpu.sh"), *WHERE, "--poll", str(poll), "--", *TRAIN]
        done = subprocess.run(
            arguments, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False
        )
        files = {file.name: file.read_text().strip() for file in model.iterdir() if file.is_file()}
        lines = []
        for line in done.stderr.splitlines():
            when, _, what = line.partition("  ")
            if when.isdecimal():
                lines.append((int(when), what))
        code = None if "horizon" in files else done.returncode
        return Seen(code, lines, int(files["clock"]), files.get("wrong", ""), files, done.stderr)


def judge(seen: Seen) -> None:
    assert seen.wrong == "", seen.text
    assert "unbound" not in seen.text
    assert "command not found" not in seen.text
    whens = [0, *(when for when, _ in seen.lines), seen.clock]
    assert max(b - a for a, b in zip(whens, whens[1:], strict=False)) <= SILENCE, seen.text
    if seen.code is None:
        assert len(seen.lines) < 60 + 4 * seen.clock / 600, seen.text  # says it now and then, not at every look
    elif seen.code == 0:
        assert seen.files["run"] == "0", seen.text
    else:
        assert "error: " in seen.text
        assert seen.code in (1, 2)


STARTS = st.sampled_from([("NONE", "none"), ("ACTIVE", "running"), ("ACTIVE", "1"), ("SUSPENDED", "none")])


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=14), STARTS)
def test_any_order_ends(draws, start):
    """Afterwards all is well: then it ends, too."""
    seen = launched(draws, slice=start[0], run=start[1])
    judge(seen)
    assert seen.code is not None, seen.text


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, max_size=8), st.sampled_from([*PASSING, *SLICE, *RUN, "DELETED"]), STARTS)
def test_whatever_stays_so_for_ever(draws, then, start):
    judge(launched(draws, then, *start, poll=300))
