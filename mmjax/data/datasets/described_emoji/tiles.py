"""The scenes of `described_emoji`: two tiles, each with some copies of one emoji. All choices are drawn by hashes.

A tile has four facts: the kind of its emoji, its own colour, how many there are, and its place. The tiles of a scene
differ in all four, so that each fact says which tile is meant, and no question after the one has the other's answer.
Each pair of values of a fact is drawn as often as any other, and facts are drawn without regard to each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any

from mmjax.data.datasets.asked_emoji.answers import COLOURS, NUMBERS, WORDS
from mmjax.data.datasets.asked_emoji.things import Thing, colourless_things
from mmjax.data.datasets.emoji_stories.grammar import hash_choice
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.errors import UserError

# What has a clear word in the singular and in the plural, by which held-out emoji can be counted, too.
COUNTED = tuple(word for word, spoken in WORDS.items() if spoken.one and spoken.many)
PLACES = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}  # row, column
FACTS: Mapping[str, Sequence[str]] = {
    "kind": COUNTED,
    "colour": tuple(colour for colour in COLOURS if colour != "white"),  # as the ground is
    "count": NUMBERS,
    "place": tuple(PLACES),
}

CELL = 32  # pixels a side: a tile has two by two of them, a picture two by two tiles
_SIDES = range(25, 30)  # pixels of an emoji
_EDGES = range(3)  # pixels that a tile leaves free, at each of its sides
_CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Copy:
    """One of a tile's emoji. x, y: of its top left corner in the picture; side: its size. All in pixels."""

    x: int
    y: int
    side: int


@dataclass(frozen=True)
class ColouredTile:
    """A coloured tile.

    kind, colour, count, place: values of `FACTS`. emoji: its id. box: the tile's left, top, right and bottom in the
    picture, in pixels, the latter two not in it. copies: `count` of the emoji.
    """

    kind: str
    colour: str
    count: str
    place: str
    emoji: str
    box: tuple[int, int, int, int]
    copies: tuple[Copy, ...]

    def relations(self, other: "ColouredTile") -> dict[str, str]:
        """The relations to another tile: `side` is "left" or "right", `height` "above" or "below"; what doesn't hold
        isn't there.
        """
        (row, column), (other_row, other_column) = PLACES[self.place], PLACES[other.place]
        found = {}
        if column != other_column:
            found["side"] = "left" if column < other_column else "right"
        if row != other_row:
            found["height"] = "above" if row < other_row else "below"
        return found

    def facts(self) -> dict[str, str]:
        """The value of each of `FACTS`."""
        return {fact: getattr(self, fact) for fact in FACTS}


@dataclass(frozen=True)
class TiledScene:
    """The tiles of a picture. `id` is the split's name and a number."""

    id: str
    tiles: tuple[ColouredTile, ColouredTile]


def planned_tiles(pictures: Mapping[str, int], limit: int | None = None) -> dict[str, list[TiledScene]]:
    """The scenes of each split, `pictures` of them, of the split's emoji alone; `limit`: of each kind only so many.

    Two scenes, of whatever splits, are never of the same facts.

    Raises:
        UserError: a split lacks a kind of emoji, or there are to be more scenes than a tenth of all possible ones.
        ImportError: a package of the extra `demo` is missing.
    """
    possible = _possible()
    if (wanted := sum(pictures.values())) > possible // 10:
        raise UserError(f"described_emoji: {wanted} pictures, and there can be {possible // 10}: lower the numbers")
    things = colourless_things(limit)
    seen: set[frozenset[tuple[str, ...]]] = set()
    return {split: _of_split(split, number, things, seen) for split, number in pictures.items()}


def _of_split(
    split: str, number: int, things: Sequence[Thing], seen: set[frozenset[tuple[str, ...]]]
) -> list[TiledScene]:
    pool = {kind: tuple(t.id for t in things if (t.split, t.word) == (split, kind)) for kind in COUNTED}
    if lacking := [kind for kind, emoji in pool.items() if not emoji]:
        raise UserError(f"described_emoji: the split {split!r} has no emoji of the kind {lacking[0]!r}: raise limit")
    pairs = {fact: tuple(permutations(values, 2)) for fact, values in FACTS.items()}
    shown: Counter[str] = Counter()
    made: list[TiledScene] = []
    turn = 0
    while len(made) < number:
        both = list(zip(*(_dealt(pairs[fact], turn, f"{split}/{fact}") for fact in FACTS), strict=True))
        turn += 1
        if frozenset(both) in seen:
            continue
        seen.add(frozenset(both))
        name = f"{split}-{len(made):05d}"
        tiles = []
        for values in both:
            facts = dict(zip(FACTS, values, strict=True))
            emoji = _dealt(pool[facts["kind"]], shown[facts["kind"]], f"{split}/{facts['kind']}")
            shown[facts["kind"]] += 1
            tiles.append(_tile(f"described/{name}/{facts['place']}", facts, emoji))
        made.append(TiledScene(name, (tiles[0], tiles[1])))
    return made


def _dealt(choices: tuple[Any, ...], turn: int, key: str) -> Any:
    """The choice of a turn: all are dealt once, in an order drawn by hash, then all again in another order."""
    deal, place = divmod(turn, len(choices))
    return _shuffled(choices, f"described/{key}/{deal}")[place]


@lru_cache(maxsize=64)
def _shuffled(choices: tuple[Any, ...], key: str) -> list[Any]:
    return sorted(choices, key=lambda choice: hashed(f"{key}/{choice}"))


def _tile(key: str, facts: Mapping[str, str], emoji: str) -> ColouredTile:
    row, column = PLACES[facts["place"]]
    top, left = 2 * CELL * row, 2 * CELL * column
    before, above, after, below = (hash_choice(_EDGES, f"{key}/edge/{which}") for which in range(4))
    box = (left + before, top + above, left + 2 * CELL - after, top + 2 * CELL - below)
    cells = sorted(_CELLS, key=lambda cell: hashed(f"{key}/cell/{cell}"))[: 1 + NUMBERS.index(facts["count"])]
    copies = []
    for down, right in cells:
        side = hash_choice(_SIDES, f"{key}/side/{down}/{right}")
        # On the tile, however much of the cell that leaves free.
        x, y = (
            hash_choice(range(max(begin, cell), min(end, cell + CELL) - side + 1), f"{key}/{axis}/{down}/{right}")
            for axis, begin, end, cell in (
                ("x", box[0], box[2], left + CELL * right),
                ("y", box[1], box[3], top + CELL * down),
            )
        )
        copies.append(Copy(x, y, side))
    return ColouredTile(**facts, emoji=emoji, box=box, copies=tuple(copies))


def _possible() -> int:
    """The number of scenes that differ in their facts."""
    found = 1
    for values in FACTS.values():
        found *= len(values) * (len(values) - 1)
    return found // 2
