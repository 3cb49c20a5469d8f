"""A folder of prepared segments of videos (`mmjax prepare videos`), as a source."""

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mmjax.data.segment_folder import PreparedVideo, prepared_facts, prepared_videos, shard_file
from mmjax.data.segment_records import Segment, unpacked_segment
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError
from mmjax.errors import UserError

OWN_COLUMNS = ("id", "video", "times", "audio", "words", "speech", "start", "end", "of_video", "split")
_OPEN = 256  # shards whose files are open at once


@dataclass(frozen=True)
class Segments(Source):
    """Segments of videos that `mmjax prepare videos` has cut; with `of`, that many consecutive ones are one record.

    A record has `id` (the video's and the segment's number, "a.mp4/3"; of several the first and last, "a.mp4/0-15");
    `video`, the frames as a list of JPEG bytes, which `DecodeVideo` reads; `times`, of the frames; `audio`, FLAC, or
    WAV of several segments, None where the video has none; `words`, JSON of a list of words with times, None where the
    video has none; `speech`, the words as one text, None where nothing is said; `start` and `end` in seconds of the
    video; `of_video`, the video's id; its `split`; and the video's own columns. `times` and the words' begin at the
    record's begin. `SegmentWindow` makes of it what `CutWindow` makes of a file.

    With `of` above 1 a record's segments are all of the full length, without a gap, and with a sound or without; the
    segments that a video has left over are in no record. All segments of a video are in one split, which a hash of its
    id, or its table, says; "all" is every one.
    """

    folder: str
    of: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.of, bool) or not isinstance(self.of, int) or self.of < 1:
            raise UserError(f"Segments(of={self.of!r}): a record has a whole number of segments, from 1 on")

    def open(self, split: str, data_dir: str | None = None) -> "SegmentRecords":
        """Opens a split. Raises `SplitNotFoundError` where it is empty; UserError where the folder is none of prepared
        segments, or isn't finished.
        """
        del data_dir  # it has a path of its own
        return SegmentRecords(self, split)

    def places(self) -> dict[str, str]:
        """The folder."""
        return {"folder": self.folder}


class SegmentRecords(Records):
    """A split of prepared segments. Records are read from the disk one by one."""

    tells_apart = True
    media = ("video", "audio", "words")

    def __init__(self, source: Segments, split: str):
        self._arguments = (source, split)
        self._of = source.of
        self._folder = Path(os.path.expanduser(source.folder))
        facts = prepared_facts(self._folder)
        videos = [video for video in prepared_videos(self._folder) if split in (WHOLE, video.split)]
        self._rows = [place for video in videos for place in _places(video, source.of)]
        if not self._rows:
            known = facts["splits"]
            longer = f" of {source.of} consecutive segments" if source.of > 1 and videos else ""
            raise SplitNotFoundError(
                f"Segments({source.folder!r}) has no record{longer} in the split {split!r}: its videos are in "
                f"{', '.join(f'{name} ({count})' for name, count in known.items()) or 'no split'}"
            )
        self._digest = of_text(json.dumps([facts["settings"], facts["shards"]], sort_keys=True))
        self.columns = (*OWN_COLUMNS, *facts["columns"])
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        shard, first = self._rows[index]
        found = [unpacked_segment(record) for record in self._read(shard, range(first, first + self._of))]
        begin, end = found[0], found[-1]
        words = _words(found)
        return {
            **{name: begin.columns.get(name) for name in self.columns[len(OWN_COLUMNS) :]},
            "id": f"{begin.video}/{begin.number}" + (f"-{end.number}" if self._of > 1 else ""),
            "video": [frame for segment in found for frame in segment.frames],
            "times": [time - begin.start for segment in found for time in segment.times],
            "audio": _joined_sound(found),
            "words": None if words is None else json.dumps(words, ensure_ascii=False),
            "speech": " ".join(word["word"] for word in words or ()) or None,
            "start": begin.start,
            "end": end.end,
            "of_video": begin.video,
            "split": begin.split,
        }

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of records, and a digest of the settings and of all segments' contents."""
        del columns  # every one is in the digest
        return {"rows": len(self), "segments": self._digest}

    def __reduce__(self) -> tuple[Any, ...]:
        return SegmentRecords, self._arguments

    def _read(self, shard: int, places: range) -> Sequence[bytes]:
        from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

        with self._lock:
            reader = self._readers.pop(shard, None)
            if reader is None:
                path = os.fspath(shard_file(self._folder, shard))
                reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
                if len(self._readers) >= _OPEN:
                    self._readers.popitem(last=False)
            self._readers[shard] = reader
            return reader.read(list(places))


def _places(video: PreparedVideo, of: int) -> list[tuple[int, int]]:
    """The shard and the first of the segments of each record of a video."""
    runs = [(place, 1) for place in range(video.segments)] if of == 1 else video.runs
    return [(video.shard, video.first + place + each) for place, count in runs for each in range(0, count - of + 1, of)]


def _words(found: Sequence[Segment]) -> list[dict[str, Any]] | None:
    """The words, with times from the record's begin, cut off at its ends; in the order of the video's words, which is
    that of their begins also where a word reaches over a later one's middle.
    """
    if all(segment.words is None for segment in found):
        return None
    start, end = found[0].start, found[-1].end
    words = sorted((word for segment in found for word in segment.words or ()), key=lambda word: (word.start, word.end))
    return [
        {"word": word.text, "start": max(word.start, start) - start, "end": min(word.end, end) - start}
        for word in words
    ]


def _joined_sound(found: Sequence[Segment]) -> bytes | None:
    sounds = [segment.audio for segment in found]
    if len(sounds) == 1 or sounds[0] is None:
        return sounds[0]
    read = [soundfile.read(io.BytesIO(sound), dtype="int16") for sound in sounds if sound is not None]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([samples for samples, _ in read]), read[0][1], format="WAV", subtype="PCM_16")
    return file.getvalue()
