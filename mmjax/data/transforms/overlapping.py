"""Windows of a video and of what is said in it that overlap in time (VideoCLIP: Xu et al. 2021, arXiv:2109.14084)."""

from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.decoding.videos import video_facts
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import RecordTransform, Rng
from mmjax.data.transforms.window import read_words, video_content
from mmjax.errors import UserError


@dataclass(frozen=True)
class CutOverlapping(RecordTransform):
    """Cuts words that follow each other out of what is said in a video, and seconds of the video about some time at
    which they are said: the two overlap, and neither begins or ends with the other.

    The words come first, for at many times nothing is said: their number is drawn, then the place of the first. The
    middle of the video's window is then drawn from the time between the begin of the first and the end of the last, and
    its length. Where it would stick out of the video it is moved inside. In evaluation the words are the middle ones,
    as many as `words` allows, and the window has their middle and the mean length. Nothing is decoded here, and sound
    isn't cut. A record without a video is unchanged; of one without words only the video's window is cut, about any
    time of it.

    Attributes:
        seconds: the least and the greatest length of the video's window; a shorter video is taken whole.
        words: the least and the greatest number of words; where fewer are said, all of them.
        video: the entry with the file, which becomes a `Clip`.
        said: the entry with subtitles or words and their times, as `CutWindow` reads them. It becomes the list of the
            chosen words (`TimedWord`), in seconds of the video. Words whose middle isn't in the video aren't chosen.
        text: the entry that the chosen words go into as one text, missing where nothing is said.

    Raises UserError where a range is none, or two entries are the same.
    """

    random = True

    seconds: tuple[float, float]
    words: tuple[int, int]
    video: str = "video"
    said: str = "words"
    text: str = "text"

    def __post_init__(self) -> None:
        for name in ("seconds", "words"):
            least, most = getattr(self, name)
            if not 0 < least <= most:
                raise UserError(
                    f"CutOverlapping({name}={getattr(self, name)!r}): it is the least and the greatest number, both "
                    "above 0, and the least first"
                )
        names = (self.video, self.said, self.text)
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"CutOverlapping: two of its entries are called {twice[0]!r}: give each its own name")

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        if record.get(self.video) is None:
            return record
        content = video_content(record[self.video])
        whole = video_facts(content).seconds
        if whole is None:
            raise BadExample("the video doesn't say how long it is, and words are looked for in all of it", "unfit")
        found: dict[str, Any] = {self.said: None, self.text: None}
        span = (0.0, whole)
        try:
            chosen = self._chosen(record.get(self.said), whole, rng)
        except BadExample as reason:  # which leaves the video
            found = {self.said: reason, self.text: reason}
        else:
            if chosen:
                span = (min(whole, max(0.0, chosen[0].start)), min(whole, max(word.end for word in chosen)))
                found = {self.said: chosen, self.text: " ".join(word.text for word in chosen)}
        start, end = self._window(span, whole, rng)
        return {**record, **found, self.video: Clip(content, start, end)}

    def _chosen(self, given: Any, whole: float, rng: Rng) -> list[TimedWord]:
        """The words of the text; none where nothing is said in the video's time."""
        if given is None or (isinstance(given, list | tuple) and not given):
            return []
        inside = [word for word in read_words(given) if 0 <= (word.start + word.end) / 2 < whole]
        least, most = (min(count, len(inside)) for count in self.words)
        count = most if rng is None else int(rng.integers(least, most + 1))
        spare = len(inside) - count
        first = spare // 2 if rng is None else int(rng.integers(spare + 1))
        return inside[first : first + count]

    def _window(self, span: tuple[float, float], whole: float, rng: Rng) -> tuple[float, float]:
        """The begin and end of the video's window, about a time of the span, which lies within the video."""
        place, share = (0.5, 0.5) if rng is None else rng.random(2).tolist()
        middle = span[0] + place * (span[1] - span[0])
        length = min(whole, self.seconds[0] + share * (self.seconds[1] - self.seconds[0]))
        start = min(max(0.0, middle - length / 2), whole - length)
        return start, start + length

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        added = (self.text,) if self.video in before and self.said in before else ()
        return tuple(dict.fromkeys((*before, *added)))
