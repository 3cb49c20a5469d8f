"""Folders of videos are prepared whole: the same bytes by any number of processes and after a kill, what is broken is
named, and nothing half written is read."""

import builtins
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmjax.data import Segments
from mmjax.data.prepare import plan
from mmjax.data.prepare import prepare_videos as module
from mmjax.data.prepare.prepare_videos import prepare_videos
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.prepare.shard import write_segments
from mmjax.data.segment_folder import PREPARED, outcome_file, shard_file
from mmjax.errors import UserError
from tests.data.prepare.conftest import SETTINGS
from tests.data.prepare.made import WHOLE

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from mmjax.data.prepare import plan
from mmjax.data.prepare.prepare_videos import prepare_videos
from tests.data.prepare.conftest import SETTINGS
plan.LEAST = 1
prepare_videos(sys.argv[1], sys.argv[2], SETTINGS, workers=1)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_several_processes_give_the_same_bytes(videos, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "LEAST", 1)
    prepare_videos(str(videos), tmp_path / "out", SETTINGS, workers=3)
    assert contents(tmp_path / "out") == contents(prepared)
    said = capsys.readouterr()
    assert "14 segments of 7 videos" in said.out
    assert "11/11 videos" in said.err
    assert len(list((prepared / "shards").glob("*.array_record"))) > 4


def test_after_a_kill_the_same_command_ends_with_the_same_bytes(videos, prepared, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-c", SCRIPT, str(videos), str(out)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not outcome_file(out, 0).exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / PREPARED).exists()
    with pytest.raises(UserError, match=r"isn't finished: \d+ of \d+ shards are there"):
        Segments(str(out)).open("all")
    # As other moments of a kill leave it: records without their outcome, and a file that is half written.
    shard_file(out, 8).write_bytes(b"half")
    (out / "shards" / ".00007.array_record.99.tmp").write_bytes(b"half")
    done = outcome_file(out, 0).stat().st_mtime_ns
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    assert contents(out) == contents(prepared)
    assert outcome_file(out, 0).stat().st_mtime_ns == done


def test_what_is_broken_is_named_and_counted(prepared):
    index = {line["id"]: line for line in lines(prepared / "videos.jsonl")}
    counts = {id: (line["segments"], line["frames"], line["sounds"], line["words"]) for id, line in index.items()}
    assert counts == {
        "a.mp4": (3, 12, 3, 5),
        "b.webm": (3, 10, 3, 0),
        "c.mp4": (2, 8, 0, 0),
        "in/a.mp4": (1, 4, 1, 1),
        "short.mp4": (1, 1, 1, 0),
        "words.mp4": (1, 4, 1, 0),
        "cut.webm": (counts["cut.webm"][0], 4 * counts["cut.webm"][0], 0, 0),
        **{id: (0, 0, 0, 0) for id in ("broken.mp4", "empty.mp4", "text.mp4", "still.mp4")},
    }
    assert {id for id in counts if counts[id][0]} == {*WHOLE, "words.mp4", "cut.webm"}
    assert index["a.mp4"]["words_outside"] == 2
    left = {(one["video"], one["part"]): one for one in lines(prepared / "left_out.jsonl")}
    assert set(left) == {
        ("cut.webm", "frames"), ("words.mp4", "words"),
        *((id, "video") for id in ("broken.mp4", "empty.mp4", "text.mp4", "still.mp4")),
    }  # fmt: skip
    cut = left["cut.webm", "frames"]
    assert 0 < cut["start"] == 2 * counts["cut.webm"][0] < cut["end"] == 12
    assert "it is JPEG, no video" in left["still.mp4", "video"]["reason"]
    facts = json.loads((prepared / PREPARED).read_text())
    assert facts["videos_left_out"] == 4
    assert facts["left_out"] == {"frames: undecodable": 1, "video: undecodable": 4, "words: undecodable": 1}


def test_another_setting_or_another_video_is_refused_and_named(videos, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LEAST", 1)
    before = contents(prepared)
    with pytest.raises(UserError, match=r"prepared otherwise: with seconds=2.0 \(now 4.0\), short_side=32 \(now 64\)"):
        prepare_videos(str(videos), prepared, PrepareSettings(4.0, 2.0, 64), workers=1)
    other = tmp_path / "other"
    shutil.copytree(videos, other)
    (other / "new.mp4").write_bytes(b"more")
    (other / "text.mp4").write_text("longer than it was")
    (other / "short.mp4").unlink()
    told = r"1 are new \(new.mp4\) and 1 are gone \(short.mp4\) and 1 have another size or split \(text.mp4\)"
    with pytest.raises(UserError, match=told):
        prepare_videos(str(other), prepared, SETTINGS, workers=1)
    assert contents(prepared) == before
    with pytest.raises(UserError, match="isn't empty, and holds no prepared segments"):
        prepare_videos(str(videos), other, SETTINGS, workers=1)


def test_a_full_disk_is_the_systems_error_and_keeps_what_is_done(videos, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LEAST", 1)
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    class Full:
        def __init__(self, path: str, options: str):
            self.inner, self.count = array_record_module_writer(path, options), 0

        def write(self, record: bytes) -> None:
            self.count += 1
            if self.count == 2:
                raise RuntimeError("write() failed: No space left on device; writing x; Could not submit chunk: 1")
            self.inner.write(record)

        def close(self) -> None:
            self.inner.close()

    array_record_module_writer = array_record_module.ArrayRecordWriter
    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Full)
    from mmjax.data.prepare.listing import listed_videos

    listed = listed_videos(str(videos), "en")
    (tmp_path / "shards").mkdir()
    write_segments(tmp_path, 0, listed[-1:], SETTINGS)
    kept = contents(tmp_path)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_segments(tmp_path, 1, listed[:1], SETTINGS)
    assert raised.value.errno == errno.ENOSPC
    assert str(raised.value.filename) == str(shard_file(tmp_path, 1))
    assert contents(tmp_path) == kept


def test_a_folder_that_cannot_be_written_to_is_an_error_before_anything(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        prepare_videos(str(videos), tmp_path / "file", SETTINGS, workers=1)


def test_two_do_not_write_into_one_folder(videos, tmp_path):
    held = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); "
    command = [sys.executable, "-c", held + "time.sleep(60)", str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match="is being written to by another process"):
            prepare_videos(str(videos), tmp_path, SETTINGS, workers=1)
        other.kill()


def test_a_process_that_dies_is_told(videos, tmp_path, monkeypatch):
    from mmjax.data.prepare.processes import ShardWorkerError, ShardWorkers

    class Killed(ShardWorkers):
        def write(self, jobs):
            os.kill(self._processes[0].pid, signal.SIGKILL)
            return super().write(jobs)

    monkeypatch.setattr(module, "ShardWorkers", Killed)
    with pytest.raises(ShardWorkerError, match=r"ended by SIGKILL at the shard 0, whose videos begin with 'a.mp4'"):
        prepare_videos(str(videos), tmp_path / "out", SETTINGS, workers=1)


def test_without_pyav_the_extra_is_named(monkeypatch, videos, tmp_path):
    imported = builtins.__import__

    def without(name, *others, **more):
        if name == "av":
            raise ImportError("no av")
        return imported(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs PyAV: pip install 'mmjax\[video\]'"):
        prepare_videos(str(videos), tmp_path / "out", SETTINGS, workers=1)
    assert not (tmp_path / "out").exists()
