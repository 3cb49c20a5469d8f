"""Sentences of videos with what is seen as they are said: an example each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord, timed_cues
from mmjax.data.paths import File
from mmjax.data.sources.contract import Records, Source, media_columns
from mmjax.data.sources.fingerprints import of_text
from mmjax.data.transforms.clip import Clip
from mmjax.errors import UserError


@dataclass(frozen=True)
class EverySentence(Source):
    """The sentences of `source`'s videos, a row each, with the seconds of the video that they are said in: VideoBERT's
    pairs (Sun et al. 2019, arXiv:1904.01766, section 4.2). `CutWindow` cuts at any time, and through sentences.

    Opening it reads all records once, for their subtitles. A video whose subtitles are missing or can't be read is one
    row, whole and without a text. Ids are the video's with the number of the sentence: `train-00007#3`.

    Attributes:
        source: of records that have a video and its subtitles.
        seconds: of the video, from the begin of a sentence on; None: to its end.
        video: the column with the file, in the place of which a row has a `Clip`.
        subtitles: the column with WebVTT or SRT, as text, bytes or a file, each cue of which is a sentence.
        text: the column that the sentence goes into, in the place of what the source has there.
    """

    source: Any
    seconds: float | None = None
    video: str = "video"
    subtitles: str = "subtitles"
    text: str = "text"

    def open(self, split: str, data_dir: str | None = None) -> "SentenceRecords":
        """Opens a split. Raises as the source does; UserError where it lacks a column, or `seconds` isn't above 0."""
        if self.seconds is not None and not self.seconds > 0:
            raise UserError(f"EverySentence(seconds={self.seconds!r}): it must be above 0, or None")
        source: Source = self.source
        records = source.open(split, data_dir)
        for name in (self.video, self.subtitles):
            if name not in records.columns:
                raise UserError(f"EverySentence: the source has no {name!r}, but {', '.join(records.columns)}")
        return SentenceRecords(records, self)


class SentenceRecords(Records):
    """A split of an `EverySentence`."""

    def __init__(self, records: Records, described: EverySentence):
        self._records, self._described = records, described
        self.columns = tuple(dict.fromkeys((*records.columns, described.text)))
        self.media = media_columns(records)
        self.class_names, self.named = records.class_names, records.named
        self._said: list[tuple[int, int, TimedWord | None]] = [
            (row, number, sentence)
            for row in range(len(records))
            for number, sentence in enumerate(_sentences(records[row][described.subtitles]))
        ]

    def __len__(self) -> int:
        return len(self._said)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        row, number, sentence = self._said[index]
        record, of = dict(self._records[row]), self._described
        record["id"] = f"{record['id']}#{number}"
        record[of.text] = None if sentence is None else sentence.text
        content = record[of.video]
        if sentence is not None and content is not None:
            content = content.unread() if isinstance(content, File) else content
            end = sentence.end if of.seconds is None else sentence.start + of.seconds
            record[of.video] = Clip(content, sentence.start, end)
        return record

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The source's, with the number of the sentences and a digest of them and their times."""
        said = "\n".join(repr((row, sentence)) for row, _, sentence in self._said)
        return self._records.fingerprint(columns) | {"rows": len(self), "sentences": of_text(said)}


def _sentences(given: Any) -> Sequence[TimedWord | None]:
    try:
        content = given.read() if isinstance(given, File) else given
        return timed_cues(content) if isinstance(content, str | bytes) else [None]
    except BadExample:
        return [None]
