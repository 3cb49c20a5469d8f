"""The scenes of `asked_emoji`: which emoji a picture shows, and where. All choices are drawn by hashes.

A scene has a quarter of the picture for each of its one to four emoji. Scenes come in twins, of the same emoji: those
of one diagonal have changed places. So what was on the left is on the right, and what stayed has other neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from mmjax.data.datasets.asked_emoji.answers import COLOURS, WORDS
from mmjax.data.datasets.asked_emoji.things import Thing
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.errors import UserError

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


def scenes(things: Sequence[Thing], split: str, count: int) -> list[tuple[Scene, Scene]]:
    """The twins of a split, `count` of them.

    A third each draws every emoji by the word for its group, by its colour, or several of one word, so that no group
    and no colour is rare, and there is something to count. Of those that fit, the emoji drawn least often is taken.

    Raises:
        UserError: the split has fewer than four emoji.
    """
    pool = [thing for thing in things if thing.split == split]
    if len(pool) < 4:
        raise UserError(
            f"asked_emoji: the split {split!r} has {len(pool)} emoji, and a picture takes four: raise limit"
        )
    by_word = {word: [thing for thing in pool if thing.word == word] for word in WORDS}
    by_colour = {colour: [thing for thing in pool if thing.colour == colour] for colour in COLOURS}
    drawn: Counter[str] = Counter()
    twins = []
    for number in range(count):
        key = f"asked/{split}-{number:04d}"
        taken: list[Thing] = []
        for wanted in _wanted(key, number, by_word, by_colour):
            free = [thing for thing in wanted if thing not in taken] or [thing for thing in pool if thing not in taken]
            taken.append(min(free, key=lambda thing: (drawn[thing.id], hashed(f"{key}/{thing.id}"))))
            drawn[taken[-1].id] += 1
        twins.append(_twins(f"{split}-{number:04d}", taken))
    return twins


def _wanted(
    key: str, number: int, by_word: dict[str, list[Thing]], by_colour: dict[str, list[Thing]]
) -> list[list[Thing]]:
    """The emoji that each place of a scene may take."""
    words = [things for things in by_word.values() if things]
    colours = [things for things in by_colour.values() if things]
    size = 1 + sum(_share(f"{key}/size") > limit for limit in accumulate(_NUMBERS[:-1]))
    if number % 3 == 0:
        return [_one(words, f"{key}/word/{place}") for place in range(size)]
    if number % 3 == 1 and colours:
        return [_one(colours, f"{key}/colour/{place}") for place in range(size)]
    counted = [by_word[word] for word, spoken in WORDS.items() if spoken.many and by_word[word]]
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


def _one(lists: Sequence[list[Thing]], key: str) -> list[Thing]:
    return lists[hashed(key) % len(lists)]


def _share(key: str) -> float:
    return hashed(key) / 2**64
