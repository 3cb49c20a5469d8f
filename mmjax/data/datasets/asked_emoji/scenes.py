"""The scenes of `asked_emoji`: which emoji a picture shows, and where. All choices are drawn by hashes.

A scene has a quarter of the picture for each of its one to four emoji. Scenes come in twins, of the same emoji: those
of one diagonal have changed places. So what was on the left is on the right, and what stayed has other neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from mmjax.data.datasets.asked_emoji.answers import COLOURS, WORDS
from mmjax.data.datasets.asked_emoji.things import Thing
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.errors import UserError

_T = TypeVar("_T")

SIDE = 96  # pixels
_QUARTER = SIDE // 2
_SIDES = range(30, 47)  # of emoji
_NUMBERS = (0.10, 0.20, 0.30, 0.40)  # of scenes have one, two, three, four emoji, where the plan doesn't say


@dataclass(frozen=True)
class Placed:
    """An emoji in a scene. row, column: of its quarter, 0 or 1, from the top left; side, x, y: its pixels."""

    thing: Thing
    row: int
    column: int
    side: int
    x: int
    y: int


@dataclass(frozen=True)
class Scene:
    """The emoji of one picture, whose `id` is the split's name, the twins' number, and "a" or "b"."""

    id: str
    placed: tuple[Placed, ...]

    def at(self, row: int, column: int) -> Placed | None:
        """The emoji of a quarter; None where it is empty, or there is no such quarter."""
        return next((placed for placed in self.placed if (placed.row, placed.column) == (row, column)), None)


class Pool:
    """The emoji of a split, also by the word for their group, and by colour."""

    def __init__(self, things: Sequence[Thing], split: str) -> None:
        """Raises UserError where the split has fewer than four emoji."""
        self.emoji = [thing for thing in things if thing.split == split]
        if len(self.emoji) < 4:
            raise UserError(
                f"asked_emoji: the split {split!r} has {len(self.emoji)} emoji, and a picture takes four: raise limit"
            )
        self.by_word = {word: [thing for thing in self.emoji if thing.word == word] for word in WORDS}
        self.by_colour = {colour: [thing for thing in self.emoji if thing.colour == colour] for colour in COLOURS}


def scenes(things: Sequence[Thing], split: str, count: int) -> list[tuple[Scene, Scene]]:
    """The twins of a split, `count` of them.

    A third each draws every emoji by the word for its group, by its colour, or several of one word, so that no group
    and no colour is rare, and there is something to count. Of those that fit, the emoji drawn least often is taken.

    Raises:
        UserError: the split has fewer than four emoji.
    """
    pool = Pool(things, split)
    drawn: Counter[str] = Counter()
    twins = []
    for number in range(count):
        key = f"asked/{split}-{number:04d}"
        taken: list[Thing] = []
        for wanted in _wanted(key, number, pool):
            taken.append(min(_free(wanted, taken, pool), key=lambda t: (drawn[t.id], hashed(f"{key}/{t.id}"))))
            drawn[taken[-1].id] += 1
        twins.append(_twins(f"{split}-{number:04d}", taken))
    return twins


def drawn_scene(pool: Pool, name: str, number: int) -> Scene:
    """A scene that no other one has a say in, as the first twin of `scenes` is, but each emoji by hash of those that
    fit. `number` says by its remainder of three what emoji are drawn by."""
    taken: list[Thing] = []
    for place, wanted in enumerate(_wanted(f"asked/{name}", number, pool)):
        taken.append(_one(_free(wanted, taken, pool), f"asked/{name}/emoji/{place}"))
    return _twins(name, taken)[0]


def _free(wanted: list[Thing], taken: Sequence[Thing], pool: Pool) -> list[Thing]:
    ids = {thing.id for thing in taken}
    free = [thing for thing in wanted if thing.id not in ids]
    return free or [thing for thing in pool.emoji if thing.id not in ids]


def _wanted(key: str, number: int, pool: Pool) -> list[list[Thing]]:
    """The emoji that each place of a scene may take."""
    words = [things for things in pool.by_word.values() if things]
    colours = [things for things in pool.by_colour.values() if things]
    size = 1 + sum(_share(f"{key}/size") > limit for limit in accumulate(_NUMBERS[:-1]))
    if number % 3 == 0:
        return [_one(words, f"{key}/word/{place}") for place in range(size)]
    if number % 3 == 1 and colours:
        return [_one(colours, f"{key}/colour/{place}") for place in range(size)]
    counted = [pool.by_word[word] for word, spoken in WORDS.items() if spoken.many and pool.by_word[word]]
    alike = 1 + hashed(f"{key}/alike") % 4
    size = alike + hashed(f"{key}/others") % (5 - alike)
    same = _one(counted or words, f"{key}/same")
    return [same] * alike + [_one(words, f"{key}/word/{place}") for place in range(alike, size)]


def _twins(name: str, things: Sequence[Thing]) -> tuple[Scene, Scene]:
    row, column, turn = (hashed(f"asked/{name}/{what}") % 2 for what in ("row", "column", "turn"))
    # Along the sides, from one end of a diagonal to the other; the last is beside both ends as well.
    beside, last = ((row, 1 - column), (1 - row, column))[:: 1 if turn else -1]
    quarters = [(row, column), beside, (1 - row, 1 - column), last]
    exchanged = [quarters[2], beside, quarters[0], last]
    order = sorted(things, key=lambda thing: hashed(f"asked/{name}/order/{thing.id}"))
    first, second = (
        Scene(f"{name}-{twin}", tuple(_placed(f"{name}-{twin}", *each) for each in zip(order, places, strict=False)))
        for twin, places in (("a", quarters), ("b", exchanged))
    )
    return first, second


def _placed(scene: str, thing: Thing, quarter: tuple[int, int]) -> Placed:
    row, column = quarter
    side, x, y = (hashed(f"asked/{scene}/{what}/{thing.id}") for what in ("side", "x", "y"))
    side = _SIDES[side % len(_SIDES)]
    room = _QUARTER - side + 1
    return Placed(thing, row, column, side, column * _QUARTER + x % room, row * _QUARTER + y % room)


def _one(choices: Sequence[_T], key: str) -> _T:
    return choices[hashed(key) % len(choices)]


def _share(key: str) -> float:
    return hashed(key) / 2**64
