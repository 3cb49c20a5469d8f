"""Writes the segments of some videos into one shard."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.prepare.cutting import cut_video
from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.outcome import Outcome
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.segment_folder import outcome_file, shard_file
from mmjax.data.segment_records import packed_segment
from mmjax.runtime.files import output

# Each record is read by itself; JPEG and FLAC can't be compressed further.
_OPTIONS = "group_size:1,uncompressed"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
_SHORT = 1e-6  # seconds by which a segment is of the full length all the same


def write_segments(
    out: Path,
    shard: int,
    videos: Sequence[ListedVideo],
    settings: PrepareSettings,
    tell: Callable[[float, int], None] = lambda seconds, size: None,
) -> None:
    """Writes a shard's records, and then what became of its videos: a kill leaves both, or the records without that,
    which are then written again, or nothing.

    tell: is called after each video with its seconds, and with its file's bytes.

    Raises:
        OSError: the disk is full, or can't be written to.
    """
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    path = shard_file(out, shard)
    digest, count, told = hashlib.blake2b(digest_size=16), 0, []
    with output.replacing(path) as part:
        try:
            writer = array_record_module.ArrayRecordWriter(os.fspath(part), _OPTIONS)
        except RuntimeError as error:
            raise _of_disk(error, path) from error
        try:
            for video in videos:
                outcome, runs = Outcome(video.id), _Runs(settings.seconds)
                for segment in cut_video(video, settings, outcome):
                    record = packed_segment(segment)
                    digest.update(hashlib.blake2b(record, digest_size=16).digest())
                    runs.add(segment.number, segment.end - segment.start, segment.audio is not None)
                    writer.write(record)
                told.append(_line(video, shard, count, outcome, runs))
                count += outcome.counts["segments"]
                tell(outcome.seconds, max(video.size, 0))
        except RuntimeError as error:
            raise _of_disk(error, path) from error
        finally:
            try:
                writer.close()
            except RuntimeError as error:
                raise _of_disk(error, path) from error
    facts = {"records": count, "digest": digest.hexdigest(), "videos": told}
    output.write(outcome_file(out, shard), json.dumps(facts, ensure_ascii=False) + "\n")


class _Runs:
    """Runs of segments that follow each other, are of the full length, and are alike in having a sound."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._count = 0
        self._last: tuple[int, bool] | None = None  # its number, and whether it has a sound
        self.runs: list[list[int]] = []

    def add(self, number: int, lasts: float, heard: bool) -> None:
        """Adds the next segment."""
        if lasts < self._seconds - _SHORT:
            self._last = None
        else:
            if self._last != (number - 1, heard):
                self.runs.append([self._count, 0])
            self.runs[-1][1] += 1
            self._last = number, heard
        self._count += 1


def _line(video: ListedVideo, shard: int, first: int, outcome: Outcome, runs: _Runs) -> dict[str, Any]:
    return {
        "id": video.id,
        "split": video.split,
        "shard": shard,
        "first": first,
        "seconds": outcome.seconds,
        **outcome.counts,
        "runs": runs.runs,
        "left_out": outcome.lines(),
    }


def _of_disk(error: RuntimeError, path: Path) -> Exception:
    """The system's error that ArrayRecord tells in words; another one as it is."""
    number = next((number for number in _DISK if os.strerror(number) in str(error)), None)
    return error if number is None else OSError(number, os.strerror(number), os.fspath(path))
