"""Splits of `stamps`: stamps of similar pictures, captions, sounds or names share a split, or variants would leak."""

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.data.datasets.stamps.catalogue import Stamp

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
_THUMBNAIL = 16  # pixels a side of the thumbnails that are compared
_NEAR = 0.12  # share of the ink on two thumbnails that differs, below which pictures are nearly the same
_LEAST_NAME = 3  # letters, below which a name doesn't count: "a", "b", and the rest of "025" without digits
_VARIANT = re.compile(r"mirror|outlined?|filled|[\d\W_]+")


def groups(stamps: Sequence[Stamp], pictures: Mapping[str, UInt8[np.ndarray, "s s 3"]]) -> dict[str, str]:
    """The smallest id, for each stamp's id, that it is linked to.

    Stamps are linked that have the same English caption, a recording in common, names that differ in digits, "mirror",
    "outline" or "filled" alone, or pictures that are nearly the same or nearly mirrored. `pictures`: by id.
    """
    leader = {stamp.id: stamp.id for stamp in stamps}

    def find(id: str) -> str:
        while leader[id] != id:
            id = leader[id]
        return id

    def link(a: str, b: str) -> None:
        first, second = sorted((find(a), find(b)))
        leader[second] = first

    holder: dict[Hashable, str] = {}
    for stamp in stamps:
        for key in _keys(stamp):
            link(stamp.id, holder.setdefault(key, stamp.id))
    ids = [stamp.id for stamp in stamps]
    for a, b in _alike(np.stack([pictures[id] for id in ids]) if ids else np.zeros((0, 1, 1, 3), np.uint8)):
        link(ids[a], ids[b])
    return {id: find(id) for id in ids}


def split_of(group: str) -> str:
    """The split that a group's hash falls into."""
    place = hashed(f"stamps/{group}") / 2**64
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    return "test"


def _keys(stamp: Stamp) -> list[Hashable]:
    """The properties by which a stamp is linked to others, except the picture."""
    sounds = [file for files in stamp.speech.values() for file in files] + ([stamp.sound] if stamp.sound else [])
    keys: list[Hashable] = [("sound", hashlib.sha256(file.read_bytes()).digest()) for file in sounds]
    if caption := re.sub(r"[\W_]+", " ", stamp.captions["en"]).strip().casefold():
        keys.append(("caption", caption))
    name = _VARIANT.sub(" ", stamp.id.rpartition("/")[2].casefold())
    if sum(map(str.isalpha, name)) >= _LEAST_NAME:
        keys.append(("name", " ".join(name.split())))
    return keys


def _alike(pictures: UInt8[np.ndarray, "n s s 3"]) -> list[tuple[int, int]]:
    """Pairs of pictures that are nearly the same, or nearly each other's mirror image."""
    side = (_THUMBNAIL, _THUMBNAIL)
    small = np.array(
        [np.asarray(Image.fromarray(p).resize(side, Image.Resampling.BOX), np.float32) for p in pictures], np.float32
    ).reshape(len(pictures), *side, 3)
    small = 255 - small  # compare ink, or two thin drawings would match by their white
    flat, mirrored = (x.reshape(len(pictures), -1) for x in (small, small[:, :, ::-1]))
    ink = flat.sum(axis=1)
    pairs = []
    for a in range(1, len(flat)):
        difference = np.minimum(np.abs(flat[:a] - flat[a]).sum(axis=1), np.abs(mirrored[:a] - flat[a]).sum(axis=1))
        pairs += [(int(b), a) for b in np.flatnonzero(difference < _NEAR * np.maximum(ink[:a], ink[a]))]
    return pairs
