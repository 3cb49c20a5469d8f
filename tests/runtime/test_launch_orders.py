"""launch_tpu.sh, whatever gcloud answers, in any order: it ends with a reason, or says what it waits for, for ever."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
HOUR = 3600
HORIZON = 12 * HOUR  # of the model's clock: what goes on until then is taken to go on for ever
SILENCE = 600 + 1800 + 300  # seconds between two words: until a reminder is due, the longest call, a look at the log
WHERE = ["tpu", "--zone", "z", "--type", "v5litepod-16"]
TRAIN = ["train", "experiments/siglip.py", "--workdir", "/mnt/shared/run"]

PASSING = ["hang", "late", "503", "255"]
SLICE = ["FAILED", "SUSPENDED", "EXISTS", "NONE", "EMPTY", "ODD", "strange", "stay"]
RUN = ["ended-1", "ended-137", "ended-0", "ended-2", "uneven-1", "vanished"]
WORDS = st.one_of(st.just("ok"), st.sampled_from(PASSING), st.sampled_from(SLICE), st.sampled_from(RUN))


@dataclass(frozen=True)
class Seen:
    """How it ended (None: at the horizon), what it said and when (by the model's clock), and the model's files."""

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
    assert max(b - a for a, b in pairwise(whens)) <= SILENCE, seen.text
    if seen.code is None:
        assert len(seen.lines) < 60 + 4 * seen.clock / 600, seen.text  # says it now and then, not at every look
    elif seen.code == 0:
        assert seen.files["run"] == "0", seen.text
    else:
        assert "error: " in seen.text
        assert seen.code in (1, 2)


STARTS = st.one_of(
    st.just(("NONE", "none")),
    st.sampled_from([("ACTIVE", run) for run in ("running", "none", "0", "1", "lost", "0 running", "none running")]),
    st.sampled_from([(slice, "none") for slice in ("SUSPENDED", "SUSPENDING", "FAILED", "DELETING", "PROVISIONING")]),
)


ORDERS = st.lists(WORDS, max_size=14), STARTS
LASTING = st.lists(WORDS, max_size=8), st.sampled_from([*PASSING, *SLICE, *RUN, "DELETED", "quota"]), STARTS


def judge_order(draws: list[str], start: tuple[str, str]) -> None:
    """Afterwards all is well: then it ends, too."""
    seen = launched(draws, "", *start)
    judge(seen)
    assert seen.code is not None, seen.text


def judge_for_ever(draws: list[str], then: str, start: tuple[str, str]) -> None:
    judge(launched(draws, then, *start, poll=300))


@settings(max_examples=12, deadline=None)
@given(*ORDERS)
def test_any_order_ends(draws, start):
    judge_order(draws, start)


@settings(max_examples=5, deadline=None)
@given(*LASTING)
def test_whatever_stays_so_for_ever(draws, then, start):
    judge_for_ever(draws, then, start)


@pytest.mark.slow  # the two above, which look at a few
@settings(max_examples=1_000, deadline=None)
@given(*ORDERS)
def test_any_of_many_orders_ends(draws, start):
    judge_order(draws, start)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(*LASTING)
def test_many_things_that_stay_so_for_ever(draws, then, start):
    judge_for_ever(draws, then, start)


def verbs(seen: Seen) -> list[str]:
    """What gcloud was told."""
    return [line.split()[1] for line in seen.files["history"].splitlines()]


@pytest.mark.parametrize("draws", [["ok", "255"], ["ok", "255", "ok", "255"], ["ok", "hang"], ["ok", "late", "NONE"]])
def test_a_run_that_goes_on_is_left_alone_when_it_is_followed_anew(draws):
    """The second call asks the hosts whether the run is there."""
    seen = launched(draws, slice="ACTIVE", run="running")
    judge(seen)
    assert seen.code == 0
    assert "is running already" in seen.text
    assert "installing" not in seen.text
    assert {"scp", "create", "delete"}.isdisjoint(verbs(seen))


def test_hosts_that_do_not_answer_are_never_taken_for_hosts_without_a_run():
    seen = launched(["ok"], "255", slice="ACTIVE", run="running")
    assert seen.code == 1
    assert "its hosts don't answer, so whether the run goes on can't be told" in seen.text
    assert seen.files["run"] == "running"
    assert {"scp", "create", "delete"}.isdisjoint(verbs(seen))


def test_a_request_that_fails_each_time_is_made_three_times():
    seen = launched(["ok", "ok", "FAILED", "ok", "ok", "ok"] * 9)
    assert seen.code == 1
    assert verbs(seen).count("create") == verbs(seen).count("delete") == 3
    assert "asked for three times, and each time it came to nothing; at last it became FAILED" in seen.text


def test_a_vm_of_that_name_is_told_after_three_tries():
    """Create says that it exists, and describe that it doesn't."""
    seen = launched(["ok", "EXISTS"] * 9)
    assert seen.code == 1
    assert verbs(seen) == ["describe", "create"] * 3
    assert "create says that tpu exists, and describe that it doesn't: most likely there is a TPU VM" in seen.text
    assert "gcloud compute tpus tpu-vm delete tpu --zone z" in seen.text
    assert "projects/p/locations/z/nodes/tpu" in seen.text  # which, in gcloud's words


@pytest.mark.parametrize("word", ["503", "hang", "EMPTY", "255", "strange"])
def test_a_look_that_fails_is_neither_an_end_nor_a_preemption(word):
    seen = launched([word, "ok", "ok", word, word, "ok", *["ok"] * 6, *[word, "ok"] * 4])
    judge(seen)
    assert seen.code == 0
    assert "taken away" not in seen.text
    assert verbs(seen).count("create") == 1
    assert "isn't known, and is asked for again" in seen.text


@pytest.mark.parametrize(
    ("draws", "then", "words"),
    [
        (["ok", "ok"], "stay", "tpu is WAITING_FOR_RESOURCES"),
        (["ok", "ok"], "ODD", "tpu is HIBERNATING"),
        (["ok", "ok"], "EMPTY", "describe gives no state of tpu"),
        (["ok", "ok"], "hang", "no answer within 120 s"),
        (["ok", "ok"], "503", "HTTPError 503"),
        (["ok", "503"] * 150, "503", "create failed, and is tried again"),
    ],
)
def test_what_is_waited_for_is_said_with_the_time_it_takes(draws, then, words):
    seen = launched(draws, then, poll=300)
    judge(seen)
    assert seen.code is None
    said = [line for _, line in seen.lines if words in line]
    assert len(said) > HORIZON / 600 / 2
    assert re.search(r"\(for 11 h \d+ min by now\)$", said[-1])


def test_what_gcloud_never_answers_ends_before_anything_was_made():
    seen = launched([], "hang")
    assert seen.code == 1
    assert verbs(seen) == ["describe"] * 5
    assert "error: gcloud: no answer within 120 s" in seen.text


def test_a_slice_that_somebody_gives_back_is_not_made_again():
    seen = launched(["ok", "DELETED"], slice="ACTIVE", run="running")
    assert seen.code == 1
    assert "tpu is MISSING: somebody has given it back" in seen.text
    assert "create" not in verbs(seen)


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("ended-137", "137: it was killed (SIGKILL): most likely its host's memory was full"),
        ("ended-143", "143: it was told to end (SIGTERM)"),
        ("vanished", "lost: it is gone without an exit code"),
    ],
)
def test_what_an_exit_code_most_likely_means(word, meaning):
    seen = launched(["ok", "ok", word], slice="ACTIVE", run="running")
    judge(seen)
    assert seen.code == 0
    assert meaning in seen.text


def test_hosts_that_wait_for_one_that_has_failed_are_started_again():
    seen = launched(["ok", "ok", "uneven-1"], slice="ACTIVE", run="running")
    judge(seen)
    assert seen.code == 0
    assert "the run goes on at some hosts, and at others it has ended with: 1" in seen.text
    assert "the run ended with: 1 running" in seen.text
