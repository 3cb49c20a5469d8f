"""The motion of `emoji_stories`: where each role is within an event, how large, how turned, and how opaque."""

from typing import NamedTuple

from mmjax.data.datasets.emoji_stories.grammar import WIDTH, Plot, Stage, StoryEvent, middle

_SHARE = 0.8  # of an event, in which it happens; then all stand still
_SOONER = 2.0  # one has appeared in half of that time
_TO_MEET = 0.45  # of that time, in which who meets somebody goes there; the rest is the meeting
_TOUCHING = (0.35, 0.65)  # of a meeting: both touch


class Pose(NamedTuple):
    """A role on the stage: its middle and size in pixels, the angle in degrees to the left, and 0 to 1."""

    role: int
    x: float
    y: float
    side: float
    angle: float = 0.0
    opacity: float = 1.0


def poses(plot: Plot, stages: list[Stage], place: int, part: float) -> list[Pose]:
    """All who are there, the actor last.

    Args:
        plot: the story's.
        stages: `plot.stages()`.
        place: of the event, from 0 on.
        part: of it that has passed, from 0 to 1.
    """
    event, stage = plot.events[place], stages[place]
    still = [
        Pose(role, *middle(cell), plot.side(role, stage.levels[role]))
        for role, cell in stage.cells.items()
        if role != event.actor
    ]
    return [*still, _acting(plot, event, stage, stages[place + 1], min(1.0, part / _SHARE))]


def _acting(plot: Plot, event: StoryEvent, before: Stage, after: Stage, part: float) -> Pose:
    role, gone = event.actor, _eased(part)
    x, y = middle(before.cells.get(role, event.cell))
    side = plot.side(role, before.levels.get(role, 0))
    if event.kind == "appear":
        return Pose(role, x, y, side, opacity=_eased(min(1.0, part * _SOONER)))
    if event.kind == "turn":
        return Pose(role, x, y, side, angle=360 * gone % 360)
    if event.kind == "leave":
        out = -side / 2 if event.way == "left" else WIDTH + side / 2
        return Pose(role, x + gone * (out - x), y, side)
    if event.kind == "meet":
        return Pose(role, *_meeting(plot, event, before, part), side)
    to_x, to_y = middle(event.cell)
    to_side = plot.side(role, after.levels[role])
    return Pose(role, x + gone * (to_x - x), y + gone * (to_y - y), side + gone * (to_side - side))


def _meeting(plot: Plot, event: StoryEvent, stage: Stage, part: float) -> tuple[float, float]:
    """The place of who meets another: it goes beside the other, touches it for a while, and draws back."""
    assert event.other is not None
    x, y = middle(stage.cells[event.actor])
    to_x, to_y = middle(event.cell)
    travel = 0.0 if stage.cells[event.actor] == event.cell else _TO_MEET
    if part < travel:
        gone = _eased(part / travel)
        return x + gone * (to_x - x), y + gone * (to_y - y)
    other_x, other_y = middle(stage.cells[event.other])
    near = sum(plot.side(role, stage.levels[role]) for role in (event.actor, event.other)) / 2
    distance = max(abs(other_x - to_x), abs(other_y - to_y))
    begin, end = _TOUCHING
    met = (part - travel) / (1 - travel)
    lean = _eased(min(1.0, met / begin, (1 - met) / (1 - end))) * (distance - near) / distance
    return to_x + lean * (other_x - to_x), to_y + lean * (other_y - to_y)


def _eased(part: float) -> float:
    """From 0 to 1, slowly at both ends."""
    return part * part * (3 - 2 * part)
