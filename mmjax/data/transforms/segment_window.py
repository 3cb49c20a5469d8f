"""A prepared segment of a video as a window: with a clip of its sound and its words, as a window of a file has them."""

import json
from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import RecordTransform, Rng


@dataclass(frozen=True)
class SegmentWindow(RecordTransform):
    """Makes of a record of `Segments` what `CutWindow` makes of a file: all of it is the window.

    Its sound becomes a `Clip` from 0 to the segment's end, and its words a list of `TimedWord`; the frames stay the
    list that `DecodeVideo` reads. So `CutSubsegments` can follow, as it follows `CutWindow`. A record without a sound,
    or without words, has none afterwards.

    Raises `BadExample` where the record has no `start` and `end`, or its words are no words with times.
    """

    audio: str = "audio"
    words: str = "words"

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        start, end = record.get("start"), record.get("end")
        if not isinstance(start, int | float) or not isinstance(end, int | float):
            raise BadExample("the record has no start and end in seconds: Segments(...) gives such", "unfit")
        found = dict(record)
        if record.get(self.audio) is not None:
            found[self.audio] = Clip(record[self.audio], 0.0, end - start, sound=True)
        if record.get(self.words) is not None:
            found[self.words] = _read(record[self.words])
        return found


def _read(text: Any) -> list[TimedWord]:
    try:
        return [TimedWord(word["word"], word["start"], word["end"]) for word in json.loads(text)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadExample(f"the segment's words are no JSON of words with times: {error}", "undecodable") from error
