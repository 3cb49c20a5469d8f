"""One window of a video: its frames, its sound and the words said in it are of the same seconds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord, timed_words, words_between
from mmjax.data.decoding.videos import video_facts
from mmjax.data.paths import File
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import RecordTransform, Rng
from mmjax.errors import UserError


@dataclass(frozen=True)
class CutWindow(RecordTransform):
    """Cuts `seconds` out of a video, at random in training and from its middle in evaluation; of a shorter one, all.

    Nothing is decoded here: the record gets what chains decode. A record without a video is unchanged.

    Attributes:
        seconds: length of the window.
        video: the entry with the file, which becomes a `Clip`.
        audio: the entry that the sound goes into, missing where the video has none. Where the record has a sound of
            its own there, that is cut: it has the video's clock.
        words: the entry with subtitles (WebVTT or SRT) or words and their times (JSON), as text, bytes, a file, or a
            list of dicts. It becomes the list of the window's words (`TimedWord`), their times from its begin. A word
            is in the window that its middle lies in, so what is said before or after the video is in none.
        speech: the entry that the window's words go into as one text, missing where nothing is said.

    Raises UserError where `seconds` isn't above 0, or two entries are the same.
    """

    random = True

    seconds: float
    video: str = "video"
    audio: str = "audio"
    words: str = "words"
    speech: str = "speech"

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise UserError(f"CutWindow(seconds={self.seconds!r}): a window's length must be above 0")
        names = (self.video, self.audio, self.words, self.speech)
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"CutWindow: two of its entries are called {twice[0]!r}: give each its own name")

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        if record.get(self.video) is None:
            return record
        content = video_content(record[self.video])
        facts = video_facts(content)
        start, end = self._window(facts.seconds, rng)
        found = {**record, self.video: Clip(content, start, end)}
        if record.get(self.audio) is not None:
            found[self.audio] = Clip(video_content(record[self.audio]), start, end, sound=True)
        else:
            found[self.audio] = Clip(content, start, end) if facts.sounds else None
        if self.words in record:
            found |= self._said(record[self.words], start, end)
        return found

    def _window(self, whole: float | None, rng: Rng) -> tuple[float, float]:
        """Its begin and end, in a video that lasts `whole` seconds; of one whose length isn't known, the begin."""
        spare = 0.0 if whole is None else max(0.0, whole - self.seconds)
        start = spare * (0.5 if rng is None else float(rng.random()))
        return start, start + (self.seconds if whole is None else min(self.seconds, whole))

    def _said(self, given: Any, start: float, end: float) -> dict[str, Any]:
        """The window's words, and the text of them; both bad where they can't be read, which leaves the video."""
        if given is None or (isinstance(given, list | tuple) and not given):
            return {self.words: None, self.speech: None}
        try:
            inside = words_between(read_words(given), start, end)
        except BadExample as reason:
            return {self.words: reason, self.speech: reason}
        return {self.words: inside, self.speech: " ".join(word.text for word in inside) or None}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        added = (self.audio,) if self.video in before else ()
        added += (self.speech,) if self.video in before and self.words in before else ()
        return tuple(dict.fromkeys((*before, *added)))


def video_content(value: Any) -> bytes | str:
    """A video's bytes, or the path of its file. Raises BadExample where it is neither."""
    if isinstance(value, File):
        return value.unread()
    if isinstance(value, bytes):
        return value
    raise BadExample(f"a video is a file or its bytes, not {type(value).__name__}: it can't be cut", "undecodable")


def read_words(given: Any) -> Sequence[TimedWord]:
    """The words of subtitles in any form that `CutWindow` reads. Raises BadExample where they can't be read."""
    if isinstance(given, File):
        given = given.read()
    if isinstance(given, list | tuple):
        if all(isinstance(word, TimedWord) for word in given):
            return given
        if all(isinstance(word, Mapping) for word in given):
            given = json.dumps([dict(word) for word in given])
    if not isinstance(given, str | bytes):
        raise BadExample(f"words with times are text, or a list of dicts, not {type(given).__name__}", "undecodable")
    return timed_words(given).words
