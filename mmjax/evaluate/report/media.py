"""Pictures and sounds within a page: small, as data URIs, until a budget of bytes is spent."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.image import Decode
from mmjax.data.transforms.spans import partly, seconds
from mmjax.evaluate.report.markup import Markup, short, tag

RATE = 16_000  # samples a second of the sounds on a page
SECONDS = 10  # of a sound; the rest is cut off
QUALITY = 82  # of JPEG
FEW = 12  # sounds that are listed open; a longer list is folded
BUDGET = 7_000_000  # bytes of pictures and sounds, once they are written as text

Raw = Callable[[int, str], Any]  # row of the split, modality -> bytes, an array, or None


class Media:
    """Of one split. Each sound stands in a list once, and is played from wherever its example is shown."""

    def __init__(
        self,
        raw: Raw,
        captions: list[Any],
        ids: list[Any],
        name: str,
        budget: list[int],
        heard: float | None = None,
    ):
        """budget: bytes that are left, in a list that all splits of a page share.  name: of the split, in anchors.
        heard: seconds of a sound that the model hears at most; None: all of it."""
        self._raw, self._captions, self._ids, self.name, self._budget = raw, captions, ids, name, budget
        self._pictures: dict[tuple[int, int], bytes | None] = {}
        self._sounds: dict[int, str | None] = {}
        self._heard = heard
        self._lasting: dict[int, float] = {}  # seconds, of all of a sound that is shown
        self.left_out = 0

    def caption(self, row: int) -> str:
        """The example's caption; its id where it has none."""
        caption = self._captions[row] if self._captions else None
        return str(self._ids[row] if caption is None or caption == "" else caption)

    def show(self, row: int, modality: str, side: int = 112) -> Markup:
        """The example as one sees or hears it."""
        caption = self.caption(row)
        if modality == "image":
            return self.picture(row, side) or tag("span", f"(no picture: {short(caption)})", class_="gone")
        if modality == "audio":
            return self.sound(row)
        return tag("q", short(caption, 90), title=caption if len(caption) > 90 else None)

    def picture(self, row: int, side: int) -> Markup | None:
        """An image of at most `side` pixels; None where there is none, or no space for it."""
        uri = self.uri(row, side)
        return (
            None
            if uri is None
            else tag("img", src=uri, alt=f"picture of: {short(self.caption(row), 120)}", loading="lazy")
        )

    def uri(self, row: int, side: int) -> str | None:
        """The picture as a data URI, which is paid for each time; None where there is none, or no space for it."""
        if (row, side) not in self._pictures:
            self._pictures[row, side] = self._jpeg(row, side)
        return self._paid("image/jpeg", self._pictures[row, side])

    def sound(self, row: int) -> Markup:
        """What plays the example's sound; its caption alone where there is none, or no space for it."""
        if row not in self._sounds:
            self._sounds[row] = self._paid("audio/ogg", self._ogg(row))
        caption = short(self.caption(row), 70)
        if self._sounds[row] is None:
            return tag("span", f"♪ {caption}", class_="gone")
        return tag(
            "a", tag("span", "▶", aria_hidden="true"), " ", caption, class_="play", href=f"#{self.anchor('sound', row)}"
        )

    def sounds(self) -> Markup | None:
        """All sounds that were shown, to be played one by one: how many, and, folded where they are many, a list."""
        there = [(row, uri) for row, uri in sorted(self._sounds.items()) if uri is not None]
        if not there:
            return None
        said = {row: partly(self._heard, self._lasting[row]) for row, _ in there}
        items = [
            tag(
                "li",
                tag("audio", controls=True, preload="none", src=uri, id=self.anchor("sound", row)),
                tag("span", self.caption(row), tag("small", text) if (text := said[row]) else None, class_="name"),
            )
            for row, uri in there
        ]
        longer = sum(text is not None for text in said.values())
        cut = (
            f"; {longer:,} of them last{'s' if longer == 1 else ''} longer than the {seconds(self._heard)} that the "
            "model hears"
            if longer and self._heard
            else ""
        )
        return tag(
            "details",
            tag("summary", f"{len(there):,} sound{'s' if len(there) > 1 else ''}, all that are shown above{cut}"),
            tag("ul", items, class_="sounds"),
            class_="folded",
            open=len(there) <= FEW,
        )

    def anchor(self, kind: str, row: int) -> str:
        """A name within the page: `sound-0-17`."""
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

    def _jpeg(self, row: int, side: int) -> bytes | None:
        value = self._raw(row, "image")
        if value is None:
            return None
        try:
            picture = Image.fromarray(Decode()(value, None))
        except BadExample:
            return None
        picture.thumbnail((side, side))
        if max(picture.size) < side // 2:  # of a few pixels: each is to be seen
            scale = side // max(picture.size)
            picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
        return stream.getvalue()

    def _ogg(self, row: int) -> bytes | None:
        value = self._raw(row, "audio")
        if value is None:
            return None
        try:
            samples = DecodeAudio(RATE)(value, None)
        except BadExample:
            return None
        self._lasting[row] = len(samples) / RATE
        stream = io.BytesIO()
        soundfile.write(stream, np.asarray(samples[: SECONDS * RATE]), RATE, format="OGG", subtype="VORBIS")
        return stream.getvalue()


def silent(text: str) -> Markup:
    """Read to those who can't see the page, and not drawn."""
    return tag("span", text, class_="said")
