"""The few emoji of `emoji_stories/familiar`, which all its splits know, and which are told apart at a glance."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.asked_emoji.things import Thing
from mmjax.data.datasets.emoji_stories.grammar import Plot
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.data.datasets.tagged_emoji.kinds import KINDS

_SIDE, _CELLS = 32, 4  # pixels of a drawing; cells a side of it that are compared
_CANDIDATES = 40  # of each group, drawn by hash: the most unlike of very many are odd ones
_TENTHS = {"validation": (0,), "test": (1,)}  # of plots, by their hash; training has the others


def familiar_things(found: Sequence[Thing], count: int) -> list[Thing]:
    """So many emoji, about as many of each of the five groups: of those in the training split of `spoken_emoji` with
    names of one word, in turn the one whose drawing is most unlike all before it.

    Raises ImportError where `resvg-py` isn't installed.
    """
    fit = [thing for thing in found if thing.split == "train" and len(thing.name.split()) == 1]
    groups = [
        sorted((thing for thing in fit if thing.word in words), key=lambda thing: hashed(f"familiar/{thing.id}"))
        for words in KINDS.values()
    ]
    looks = {thing.id: _look(thing) for group in groups for thing in group[:_CANDIDATES]}
    chosen: list[Thing] = []
    for number in range(count):
        left = [thing for thing in groups[number % len(groups)][:_CANDIDATES] if thing not in chosen]
        if not left:
            break
        chosen.append(max(left, key=lambda thing: _unlike(looks, thing, chosen)))
    return sorted(chosen, key=lambda thing: thing.id)


def split_of_plot(plot: Plot) -> str:
    """The split whose stories have a plot, by the hash of its events: eight of ten plots are training's."""
    tenth = hashed(f"familiar/plot/{[tuple(event) for event in plot.events]}") % 10
    return next((split for split, tenths in _TENTHS.items() if tenth in tenths), "train")


def _look(thing: Thing) -> Float[np.ndarray, " d"]:
    """The mean colours of a drawing's cells, on white."""
    drawn = drawing(thing.id, _SIDE)
    white = Image.new("RGBA", drawn.size, "white")
    small = Image.alpha_composite(white, drawn).convert("RGB").resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return np.asarray(small, float).reshape(-1)


def _unlike(looks: dict[str, np.ndarray], thing: Thing, chosen: Sequence[Thing]) -> float:
    """The distance to the one that looks most like it; of the first one, to nobody."""
    return min((float(np.linalg.norm(looks[thing.id] - looks[other.id])) for other in chosen), default=0.0)
