"""Pictures, sounds and videos within a page: small, as data URIs, until a budget of bytes is spent."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.spans import partly, seconds
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.report.markup import Markup, short, tag
from mmjax.runtime.counts import noun

RATE = 16_000  # samples a second of the sounds on a page
SECONDS = 10  # seconds of a sound or a video; the rest is cut off
CLIP = 96  # pixels of a video's shorter side
QUALITY = 82  # quality of JPEG
FEW = 12  # sounds that are listed open; a longer list is folded
BUDGET = 7_000_000  # bytes of pictures and sounds, encoded as text

Raw = Callable[[int, str], Any]  # row of the split, modality -> bytes, an array, or None


class Media:
    """The pictures and sounds of one split. Each sound is in a list once, and is played from wherever its example is
    shown.
    """

    def __init__(
        self,
        raw: Raw,
        embedded: Embedded,
        name: str,
        budget: list[int],
        heard: Mapping[str, float | None] | None = None,
    ):
        """embedded: what is known of the examples besides.  budget: bytes that are left, in a list that all splits of a
        page share.  name: of the split, in anchors.
        heard: by modality, seconds of a sound that the model hears at most; None: all of it."""
        self._raw, self._embedded, self.name, self._budget = raw, embedded, name, budget
        self._captions = embedded.captions
        self._pictures: dict[tuple[int, str, int], bytes | None] = {}
        self._sounds: dict[tuple[str, int], str | None] = {}
        self._clips: dict[tuple[str, int], str | None] = {}
        self._heard = heard or {}
        self._lasting: dict[tuple[str, int], float] = {}  # seconds, of all of a sound that is shown
        self.left_out = 0

    def kind(self, modality: str) -> type[Input]:
        """Returns its kind, which says whether it is drawn, played, written or none of these."""
        return self._embedded.kind(modality)

    def caption(self, row: int) -> str:
        """The example's caption; its id where it has none."""
        caption = self._captions[row] if self._captions else None
        return str(self._embedded.columns["id"][row] if caption is None or caption == "" else caption)

    def text(self, row: int, modality: str) -> str:
        """The example in words: what a text says, of anything else its caption."""
        own = self._embedded.columns.get(modality) if self.kind(modality).words else None
        return self.caption(row) if own is None or own[row] in (None, "") else str(own[row])

    def show(self, row: int, modality: str, side: int = 112) -> Markup:
        """The example as one sees, hears or reads it; of what can't be shown its caption, and that it can't."""
        kind, text = self.kind(modality), self.text(row, modality)
        if kind.moves and (clip := self.clip(row, modality, side)):
            return clip
        if kind.draws:
            return self.picture(row, modality, side) or tag("span", f"(no picture: {short(text)})", class_="gone")
        if kind.plays:
            return self.sound(row, modality)
        if not kind.words:
            return tag("span", f"({noun(modality)}, which can't be shown: {short(text)})", class_="gone")
        return tag("q", short(text, 90), title=text if len(text) > 90 else None)

    def picture(self, row: int, modality: str, side: int) -> Markup | None:
        """An image of at most `side` pixels; None where there is none, or no space for it."""
        uri = self.uri(row, modality, side)
        return (
            None
            if uri is None
            else tag("img", src=uri, alt=f"picture of: {short(self.caption(row), 120)}", loading="lazy")
        )

    def clip(self, row: int, modality: str, side: int) -> Markup | None:
        """A picture of the example's video, as a link to where it plays (`clips`); the picture alone where there is no
        space for the video, None where there is none for that either.
        """
        picture = self.picture(row, modality, side)
        if (modality, row) not in self._clips:
            self._clips[modality, row] = self._paid("video/webm", self._webm(row, modality)) if picture else None
        if picture is None or self._clips[modality, row] is None:
            return picture
        said = silent(f"play {short(self.caption(row), 70)}")
        return tag("a", picture, said, class_="play", href=f"#{self.anchor(modality, row)}")

    def clips(self) -> Markup | None:
        """All videos that were shown, to be played one by one."""
        items = [
            tag(
                "li",
                tag("video", src=uri, controls=True, preload="metadata", id=self.anchor(*key)),
                tag("span", self.caption(key[1]), class_="name"),
            )
            for key, uri in sorted(self._clips.items())
            if uri is not None
        ]
        return tag("ul", items, class_="clips") if items else None

    def uri(self, row: int, modality: str, side: int) -> str | None:
        """The picture as a data URI, which is paid for each time; None where there is none, or no space for it."""
        if (row, modality, side) not in self._pictures:
            self._pictures[row, modality, side] = self._jpeg(row, modality, side)
        return self._paid("image/jpeg", self._pictures[row, modality, side])

    def made(self, pixels: np.ndarray, side: int) -> str | None:
        """A picture that was made for the page, uint8 `[H, W, 3]`, as a data URI; None where there is no space."""
        return self._paid("image/jpeg", _encoded(Image.fromarray(pixels), side))

    def sound(self, row: int, modality: str) -> Markup:
        """Returns the HTML that plays the example's sound; its caption where there is none, or no space for it."""
        if (modality, row) not in self._sounds:
            self._sounds[modality, row] = self._paid("audio/ogg", self._ogg(row, modality))
        caption = short(self.caption(row), 70)
        if self._sounds[modality, row] is None:
            return tag("span", f"♪ {caption}", class_="gone")
        place = f"#{self.anchor(modality, row)}"
        return tag("a", tag("span", "▶", aria_hidden="true"), " ", caption, class_="play", href=place)

    def sounds(self) -> Markup | None:
        """All sounds that were shown, to be played one by one: how many, and, folded where they are many, a list."""
        there = [(*key, uri) for key, uri in sorted(self._sounds.items()) if uri is not None]
        if not there:
            return None
        said = {(m, row): partly(self._heard.get(m), self._lasting[m, row]) for m, row, _ in there}
        items = [
            tag(
                "li",
                tag("audio", controls=True, preload="none", src=uri, id=self.anchor(modality, row)),
                tag(
                    "span",
                    self.caption(row),
                    tag("small", text) if (text := said[modality, row]) else None,
                    class_="name",
                ),
            )
            for modality, row, uri in there
        ]
        longer = sum(text is not None for text in said.values())
        most = {self._heard[m] for m, _ in self._sounds if self._heard.get(m) is not None}
        than = seconds(next(iter(most)) or 0) if len(most) == 1 else "seconds"
        cut = f"; {longer:,} of them last{'s' if longer == 1 else ''} longer than the {than} that the model hears"
        cut = cut if longer else ""
        return tag(
            "details",
            tag("summary", f"{len(there):,} sound{'s' if len(there) > 1 else ''}, all that are shown above{cut}"),
            tag("ul", items, class_="sounds"),
            class_="folded",
            open=len(there) <= FEW,
        )

    def anchor(self, kind: str, row: int) -> str:
        """A name within the page: `audio-0-17`."""
        return f"{kind}-{self.name}-{row}"

    def _paid(self, kind: str, content: bytes | None) -> str | None:
        if content is None:
            return None
        uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        if len(uri) > self._budget[0]:
            self.left_out += 1
            return None
        self._budget[0] -= len(uri)
        return uri

    def _jpeg(self, row: int, modality: str, side: int) -> bytes | None:
        value = self._raw(row, modality)
        if value is None:
            return None
        try:
            picture = Image.fromarray(self.kind(modality).drawn(value))
        except BadExample:
            return None
        return _encoded(picture, side)

    def _webm(self, row: int, modality: str) -> bytes | None:
        value = self._raw(row, modality)
        try:
            return None if value is None else self.kind(modality).filmed(value, SECONDS, CLIP)
        except BadExample:
            return None

    def _ogg(self, row: int, modality: str) -> bytes | None:
        value = self._raw(row, modality)
        if value is None:
            return None
        try:
            samples, _ = self.kind(modality).played(value, RATE)
        except BadExample:
            return None
        self._lasting[modality, row] = len(samples) / RATE
        stream = io.BytesIO()
        soundfile.write(stream, np.asarray(samples[: SECONDS * RATE]), RATE, format="OGG", subtype="VORBIS")
        return stream.getvalue()


def _encoded(picture: Image.Image, side: int) -> bytes:
    """A picture of at most `side` pixels, as JPEG."""
    picture.thumbnail((side, side))
    if max(picture.size) < side // 2:  # tiny: each pixel stays visible
        scale = side // max(picture.size)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def silent(text: str) -> Markup:
    """Text for screen readers only, which is not drawn."""
    return tag("span", text, class_="said")
