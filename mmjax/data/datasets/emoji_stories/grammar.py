"""The grammar of `emoji_stories`: the events of a plot, in which numbered roles act in the cells of a stage.

One may appear, move, meet another, grow, shrink, turn and leave. Only who has appeared and hasn't left acts; roles are
numbered in the order in which they appear. All choices are drawn by hashes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from mmjax.data.datasets.spoken_emoji.catalogue import hashed

_T = TypeVar("_T")

ROWS, COLUMNS, CELL = 2, 3, 32  # of the stage; pixels a side of each cell
HEIGHT, WIDTH = ROWS * CELL, COLUMNS * CELL
ROLES = range(2, 6)  # numbers of roles that plots have
_SIDES = range(22, 25)  # pixels of a role
_FACTOR = 1.25  # by which one grows
_LARGEST = round(_SIDES[-1] * _FACTOR)
_WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
_POINTS = 32  # of a path that are looked at

Cell = tuple[int, int]  # row and column


class StoryEvent(NamedTuple):
    """An event: the role `actor` does what `kind` says.

    other: the role that is met, else None. way: where to one moves or leaves, else "". cell: where the actor is at
    last; who leaves has none left, and keeps the one that it leaves from.
    """

    kind: str
    actor: int
    other: int | None = None
    way: str = ""
    cell: Cell = (0, 0)


@dataclass
class Stage:
    """The roles that are present: the cell of each, and the level of its size (-1, 0 or 1)."""

    cells: dict[int, Cell] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)

    def after(self, event: StoryEvent) -> "Stage":
        """The stage that an event leaves."""
        cells, levels = dict(self.cells), dict(self.levels)
        cells[event.actor] = event.cell
        levels.setdefault(event.actor, 0)
        levels[event.actor] += {"grow": 1, "shrink": -1}.get(event.kind, 0)
        if event.kind == "leave":
            del cells[event.actor], levels[event.actor]
        return Stage(cells, levels)

    def free(self) -> list[Cell]:
        """The cells that nobody is in."""
        return [(r, c) for r in range(ROWS) for c in range(COLUMNS) if (r, c) not in self.cells.values()]


class Plot(NamedTuple):
    """The events of a story, and the size of each role in pixels, as it appears."""

    events: tuple[StoryEvent, ...]
    sides: tuple[int, ...]

    def stages(self) -> list[Stage]:
        """The stage before each event, and the one after the last."""
        stages = [Stage()]
        for event in self.events:
            stages.append(stages[-1].after(event))
        return stages

    def side(self, role: int, level: int) -> float:
        """The size of a role in pixels at a level."""
        return self.sides[role] * _FACTOR**level

    def following(self) -> list[tuple[str, str]]:
        """The kinds of each event and the next one, of those in which nobody appears."""
        return [(a.kind, b.kind) for a, b in pairwise(self.events) if "appear" not in (a.kind, b.kind)]


def middle(cell: Cell) -> tuple[float, float]:
    """The place of a cell's middle: x and y in pixels, from the top left."""
    row, column = cell
    return (column + 0.5) * CELL, (row + 0.5) * CELL


def drawn_plot(key: str, roles: int, events: int) -> Plot | None:
    """The plot that a key draws; None where it gets stuck, which few do.

    Args:
        key: what is hashed.
        roles: how many, each of which appears.
        events: how many, `roles` among them to appear.
    """
    later = sorted(range(1, events), key=lambda place: hashed(f"{key}/appears/{place}"))[: roles - 1]
    stage, found = Stage(), list[StoryEvent]()
    seen = 0
    for place in range(events):
        if place == 0 or place in later:
            options = [StoryEvent("appear", seen, cell=cell) for cell in stage.free()]
            seen += 1
        else:
            options = [event for event in _options(stage) if event.kind == "move" or not _again(event, found[-1])]
        kinds = sorted({event.kind for event in options})
        if not kinds:
            return None
        kind = hash_choice(kinds, f"{key}/{place}/kind")
        event = hash_choice([event for event in options if event.kind == kind], f"{key}/{place}/event")
        found.append(event)
        stage = stage.after(event)
    return Plot(tuple(found), tuple(hash_choice(_SIDES, f"{key}/side/{role}") for role in range(roles)))


def _options(stage: Stage) -> Iterator[StoryEvent]:
    """All that may happen next, besides that somebody appears."""
    for actor, cell in stage.cells.items():
        level = stage.levels[actor]
        if level < 1:
            yield StoryEvent("grow", actor, cell=cell)
            yield StoryEvent("turn", actor, cell=cell)  # a large one's corners would turn into the next cell
        if level > -1:
            yield StoryEvent("shrink", actor, cell=cell)
        row, column = cell
        for way, (down, right) in _WAYS.items():
            if (to := (row + down, column + right)) in stage.free():
                yield StoryEvent("move", actor, way=way, cell=to)
        for way, others in (("left", range(column)), ("right", range(column + 1, COLUMNS))):
            if all((row, other) in stage.free() for other in others):
                yield StoryEvent("leave", actor, way=way, cell=cell)
        for other, there in stage.cells.items():
            if other != actor:
                places = [cell] if _beside(cell, there) else stage.free()
                for to in places:
                    if _beside(to, there) and _clear(stage, actor, to):
                        yield StoryEvent("meet", actor, other, cell=to)


def _again(event: StoryEvent, last: StoryEvent) -> bool:
    return (event.kind, event.actor) == (last.kind, last.actor)


def _beside(cell: Cell, other: Cell) -> bool:
    return abs(cell[0] - other[0]) + abs(cell[1] - other[1]) == 1


def _clear(stage: Stage, actor: int, to: Cell) -> bool:
    """Whether the straight way of an actor to a cell touches nobody, however large all are."""
    (x, y), (to_x, to_y) = middle(stage.cells[actor]), middle(to)
    others = [middle(cell) for role, cell in stage.cells.items() if role != actor]
    return all(
        max(abs(x + part * (to_x - x) - other_x), abs(y + part * (to_y - y) - other_y)) >= _LARGEST
        for part in (point / _POINTS for point in range(_POINTS + 1))
        for other_x, other_y in others
    )


def hash_choice(choices: Sequence[_T], key: str) -> _T:
    """One of the choices, by a key's hash."""
    return choices[hashed(f"stories/{key}") % len(choices)]
