"""The processes that build `spoken_emoji` don't run the caller's script, and end with whoever began them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.data.datasets.spoken_emoji import workers as emoji_workers
from mmjax.data.datasets.spoken_emoji.catalogue import catalogue
from mmjax.data.datasets.spoken_emoji.example import make_example, picture_folder
from mmjax.data.datasets.spoken_emoji.workers import WorkerError, Workers
from tests import scripts

BUILDS = """
import sys
from mmjax.data.datasets.spoken_emoji.builder import EmojiConfig, SpokenEmoji
made = SpokenEmoji(config=EmojiConfig(name="tiny", limit=12), data_dir=sys.argv[1])
made.download_and_prepare()
print(sum(split.num_examples for split in made.info.splits.values()), flush=True)
"""
WAITS = """
import sys, time
from mmjax.data.datasets.spoken_emoji.workers import Workers
workers = Workers(2)
print(*(process.pid for process in workers._processes), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def entries():
    return catalogue(path.stem for path in picture_folder().glob("*.svg"))[:6]


def test_a_script_without_a_guard_builds_once_and_leaves_nothing(tmp_path):
    ended = scripts.run(tmp_path / "mine.py", BUILDS, str(tmp_path / "data"))
    assert (ended.code, ended.said, ended.starts, ended.left) == (0, "12\n", 1, 0), ended.complained


def test_they_make_what_this_process_makes_in_order(entries):
    workers = Workers(2)
    try:
        made = list(workers.map(entries, ("en",)))
    finally:
        workers.close()
    assert [example["id"] for example in made] == [entry.id for entry in entries]
    assert made[3] == make_example(entries[3], ("en",))
    assert [process.returncode for process in workers._processes] == [0, 0]


def test_an_error_of_one_comes_out_and_a_dead_one_is_told(entries):
    workers = Workers(1)
    with pytest.raises(KeyError, match="xx"):  # no such language
        list(workers.map(entries[:1], ("xx",)))
    assert next(workers.map(entries[:1], ("en",)))["id"] == entries[0].id
    workers._processes[0].kill()
    with pytest.raises(WorkerError, match="a worker process died"):
        list(workers.map(entries, ("en",)))
    workers.close()


def test_a_kill_of_the_builder_ends_them():
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    deadline = time.monotonic() + 20
    while any(_lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in pids if _lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def _lives(pid: int) -> bool:
    """Whether it is one of theirs, and runs."""
    try:
        return emoji_workers.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
