"""The emoji that pictures of `asked_emoji` are made of, with all that questions may ask of one."""

import re
from dataclasses import dataclass, replace

import numpy as np

from mmjax.data.datasets.asked_emoji.answers import WORDS, word_of
from mmjax.data.datasets.asked_emoji.colours import colour_of
from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.spoken_emoji.catalogue import SKIN_TONES, catalogue, hashed
from mmjax.data.datasets.spoken_emoji.example import picture_folder

_SIDE = 32  # pixels of the drawing whose colours are counted: shares don't depend on it
_PLAIN = re.compile(r"[a-z-]+( [a-z-]+){0,2}")  # one to three words, none of them a proper name


@dataclass(frozen=True)
class Thing:
    """One emoji.

    name: its English name, or "" where that is long, of unusual letters, or a group's word.
    word: that of its group. colour: None where it isn't clear, and of people.
    """

    id: str
    name: str
    word: str
    colour: str | None
    split: str


def things(limit: int | None = None) -> list[Thing]:
    """`colourless_things` with their colours, for which each is drawn; people have none."""
    return [
        thing if thing.word == "person" else replace(thing, colour=colour_of(np.asarray(drawing(thing.id, _SIDE))))
        for thing in colourless_things(limit)
    ]


def colourless_things(limit: int | None = None) -> list[Thing]:
    """All emoji without a skin tone that a word fits, by id, in the splits of `spoken_emoji`. `limit`: of each word
    only so many in each split, drawn by hash.

    Raises ImportError where a package of the extra `demo` is missing.
    """
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in catalogue(path.stem for path in picture_folder().glob("*.svg")):
        word = word_of(entry.id, entry.subgroup)
        if word is not None and not SKIN_TONES & set(entry.id.split("-")):
            found.setdefault((entry.split, word), []).append((entry.id, entry.names["en"]))
    return sorted(
        (
            Thing(emoji_id, name if _PLAIN.fullmatch(name) and name not in WORDS else "", word, None, split)
            for (split, word), named in found.items()
            for emoji_id, name in sorted(named, key=lambda each: hashed(f"asked/limit/{each[0]}"))[:limit]
        ),
        key=lambda thing: thing.id,
    )
