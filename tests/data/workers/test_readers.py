"""Processes that read end with the one that trains, however it ends, and leave no shared memory behind."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest

from mmjax.data.workers import parcels, readers, semaphores
from mmjax.data.workers.readers import ReaderError, Readers
from mmjax.errors import UserError

# A training process without a model: says who reads for it and what they send, takes three batches, and ends as asked.
TRAINS = """
import json, multiprocessing, os, signal, sys, time
import grain, numpy as np
from mmjax.data.workers.readers import ReaderError, Readers

class Row:
    def __call__(self, place):
        if sys.argv[1] == "hangs" and place > 5:
            time.sleep(600)
        return {"image": np.full((4, 1000), place % 256, np.uint8), "index": np.arange(4, dtype=np.uint32)}

def main():
    readers = Readers(grain.MapDataset.range(10_000).map(Row()), workers=2, prefetch=4)
    kept = [next(readers) for _ in range(3)]  # as jax may
    pids = [process.pid for process in multiprocessing.active_children()]
    taken = [int(batch["image"][0, 0]) for batch in kept]
    print(json.dumps({"pids": pids, "taken": taken, "address": readers._mailbox.address.text}), flush=True)
    if sys.argv[1] == "ends":
        os.kill(pids[0], signal.SIGSTOP)
        return
    if sys.argv[1] != "loses":
        time.sleep(600)
    os.kill(pids[1], signal.SIGKILL)
    try:
        while True:
            kept.append(next(readers))
    except ReaderError as error:
        print(error)

if __name__ == "__main__":
    main()
"""

# What lives keeps its semaphores, until it is done with them.
LIVES = """
import gc, multiprocessing
from mmjax.data.workers import semaphores
semaphores.name_ours()
mine = multiprocessing.get_context("spawn").Lock()
prefix = multiprocessing.process.current_process()._config["semprefix"]
(name,) = semaphores.FOLDER.glob(f"sem{prefix.replace('/', '.')}-*")
semaphores.sweep()
assert name.exists()
del mine
gc.collect()
assert not name.exists()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def left(address: str) -> list[str]:
    return [path.name for path in parcels.FOLDER.glob(f"{address}*")]


def semaphores_of(pid: int) -> set[Path]:
    """The files of those that have a name, which the process has in its memory."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    mapped = {int(line.split()[4]) for line in lines if "/dev/shm/sem." in line}  # under other names
    found = set()
    for path in semaphores.FOLDER.glob("sem.*"):
        with contextlib.suppress(FileNotFoundError):  # of others
            found |= {path} if path.stat().st_ino in mapped else set()
    return found


def wait_until(true, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def trainer(tmp_path):
    """Starts TRAINS; whatever it leaves is killed."""
    begun: list[subprocess.Popen[str]] = []
    pids: list[int] = []

    def start(how: str):
        (tmp_path / "trains.py").write_text(TRAINS)
        words = [sys.executable, str(tmp_path / "trains.py"), how]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, text=True, start_new_session=True, **pipes)
        begun.append(process)
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        pids.extend(said["pids"])
        assert said["taken"] == [0, 1, 2]
        assert len(said["pids"]) == 2
        return process, said["pids"], said["address"]

    yield start
    for process in begun:
        process.kill()
        process.wait()
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def test_a_kill_of_the_training_process_takes_its_readers_along_and_their_memory(trainer):
    process, pids, address = trainer("hangs")
    assert wait_until(lambda: len(left(address)) > 1, 5)  # its lock, and batches that wait
    os.kill(pids[0], signal.SIGSTOP)  # of the two one runs, and one is stopped
    process.kill()
    assert wait_until(lambda: not any(map(alive, pids)), 5)
    assert left(address) == []


def test_what_a_kill_of_all_leaves_the_next_run_removes_and_no_more_than_that(trainer, monkeypatch):
    living = parcels.Mailbox()
    kept = parcels.Pack(living.address)({"index": np.arange(3)})
    process, pids, address = trainer("hangs")
    assert wait_until(lambda: len(left(address)) > 1, 5)
    linux = sys.platform == "linux"  # elsewhere semaphores have no files
    named = semaphores_of(process.pid) if linux else set()
    assert len(named) > 5 or not linux  # of Grain's queues and events
    semaphores.sweep()  # nothing of what lives
    os.killpg(process.pid, signal.SIGKILL)  # Python's own tracker of shared memory too
    process.wait()
    assert wait_until(lambda: not any(map(alive, pids)), 5)
    assert len(left(address)) > 1
    assert all(path.exists() for path in named)
    parcels.Mailbox().close()
    assert left(address) == []
    np.testing.assert_array_equal(parcels.unpacked(kept)["index"], np.arange(3))
    living.close()
    config = multiprocessing.process.current_process()._config  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(config, "semprefix", config.get("semprefix"))
    semaphores.name_ours()
    assert not any(path.exists() for path in named)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere semaphores have no files")
def test_what_lives_keeps_its_semaphores():
    # In a process of its own: here a test may have imported joblib, which gives all semaphores names of its own.
    subprocess.run([sys.executable, "-c", LIVES], check=True)


def test_names_of_other_makers_are_told_from_those_of_the_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(semaphores, "FOLDER", tmp_path)
    space, own = semaphores._space(), semaphores._maker(os.getpid())
    started = int(str(own).rpartition("-")[2])
    kept = {f"sem.mmjax-{own}-abc", f"sem.mmjax-{int(space) + 1}-999999999-1-abc", "sem.mp-abc", "sem.mmjax-x-y-z-w"}
    dead = {f"sem.mmjax-{space}-999999999-1-abc", f"sem.mmjax-{space}-{os.getpid()}-{started - 1}-abc"}
    for name in kept | dead:
        (tmp_path / name).touch()
    semaphores.sweep()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_reader_that_is_killed_is_told_and_the_end_leaves_nothing(trainer):
    process, pids, address = trainer("loses")
    said, complained = process.communicate(timeout=60)
    assert said == (
        f"a process that reads data ({pids[1]}) was ended by SIGKILL, for want of memory maybe (data.workers=2, "
        "data.cache). Start the same command again to go on\n"
    )
    assert complained == ""  # "resource_tracker: There appear to be 27 leaked shared_memory objects"
    assert process.returncode == 0
    assert not any(map(alive, pids))
    assert left(address) == []


def test_a_reader_that_is_stopped_does_not_hold_up_the_end(trainer):
    process, pids, address = trainer("ends")
    assert process.wait(timeout=60) == 0
    assert not any(map(alive, pids))
    assert left(address) == []


def test_readers_are_woken_before_they_are_waited_for():
    """Linux wakes one of those that `test_a_reader_that_is_stopped...` stops, when its thread ends first; or not."""
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    reader = context.Process(target=end.wait, args=(600,), name="grain-0", daemon=True)
    reader.start()
    assert reader.pid is not None
    os.kill(reader.pid, signal.SIGSTOP)

    class Batches:
        def close(self) -> None:
            end.set()  # which one that is stopped doesn't hear
            reader.join(20)

    readers._close(Batches(), parcels.Mailbox())
    ended = reader.exitcode
    reader.kill()
    assert ended == 0


def test_a_reader_that_ends_by_itself_is_no_want_of_memory():
    def ends():
        raise RuntimeError("Grain worker process 1 was terminated unexpectedly with exit code 3")
        yield

    readers = Readers.__new__(Readers)
    readers._batches, readers._workers, readers._pids = ends(), 2, set()
    with pytest.raises(ReaderError, match=r"^a process that reads data ended with exit code 3 \(data.workers=2\)"):
        next(readers)


class Refuses:
    """A transform that asks for what can't be had."""

    def __call__(self, row: int) -> None:
        raise UserError(f"own.csv, row {row}: there is no such label")


def test_an_error_for_a_person_comes_out_of_a_reader_as_it_was_said():
    readers = Readers(grain.MapDataset.range(4).map(Refuses()), workers=1, prefetch=1)
    with pytest.raises(UserError) as caught:
        next(readers)
    readers.close()
    assert type(caught.value) is UserError
    assert str(caught.value) == "own.csv, row 0: there is no such label"  # Grain's note of its frames isn't shown
