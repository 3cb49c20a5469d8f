from collections import Counter

import pytest

from mmjax.data.datasets.emoji_stories.grammar import (
    COLUMNS,
    HEIGHT,
    ROWS,
    WIDTH,
    Plot,
    Stage,
    StoryEvent,
    drawn_plot,
    middle,
)
from tests.data.datasets.emoji_stories.made import KINDS, plots


@pytest.fixture(scope="module")
def drawn():
    return plots()


def test_nobody_acts_before_appearing_or_after_leaving(drawn):
    for plot in drawn:
        there: set[int] = set()
        gone: set[int] = set()
        for event in plot.events:
            assert event.kind in KINDS
            if event.kind == "appear":
                assert event.actor not in there | gone
                there.add(event.actor)
            assert event.actor in there
            assert (event.other is not None) == (event.kind == "meet")
            if event.other is not None:
                assert event.other in there
                assert event.other != event.actor
            if event.kind == "leave":
                there.remove(event.actor)
                gone.add(event.actor)
        assert [e.actor for e in plot.events if e.kind == "appear"] == list(range(len(plot.sides)))
    assert {event.kind for plot in drawn for event in plot.events} == set(KINDS)


def test_no_two_are_in_one_cell_and_all_are_on_the_stage(drawn):
    for plot in drawn:
        for stage in plot.stages():
            cells = list(stage.cells.values())
            assert len(set(cells)) == len(cells)
            assert all(0 <= row < ROWS and 0 <= column < COLUMNS for row, column in cells)
            assert set(stage.levels) == set(stage.cells)
            assert set(stage.levels.values()) <= {-1, 0, 1}
            for role, cell in stage.cells.items():
                x, y = middle(cell)
                half = plot.side(role, stage.levels[role]) / 2
                assert half <= x <= WIDTH - half
                assert half <= y <= HEIGHT - half
                assert 17 < 2 * half <= 30


def test_moves_go_where_they_say_and_who_meets_another_is_beside_it(drawn):
    ways = Counter()
    for plot in drawn:
        for event, before, after in zip(plot.events, plot.stages(), plot.stages()[1:], strict=False):
            if event.kind == "move":
                (row, column), (to_row, to_column) = before.cells[event.actor], after.cells[event.actor]
                step = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}[event.way]
                assert (to_row - row, to_column - column) == step
                ways[event.way] += 1
            elif event.kind == "meet":
                (row, column), (to_row, to_column) = after.cells[event.actor], after.cells[event.other]
                assert abs(row - to_row) + abs(column - to_column) == 1
                assert before.cells[event.other] == after.cells[event.other]
            elif event.kind == "leave":
                assert event.way in ("left", "right")
                row, column = before.cells[event.actor]
                passed = range(column) if event.way == "left" else range(column + 1, COLUMNS)
                assert not {(row, each) for each in passed} & set(before.cells.values())
    assert set(ways) == {"left", "right", "up", "down"}


def test_nobody_does_the_same_twice_in_a_row_but_move(drawn):
    for plot in drawn:
        for event, following in zip(plot.events, plot.events[1:], strict=False):
            if event.kind != "move":
                assert (event.kind, event.actor) != (following.kind, following.actor)


def test_a_plot_is_its_key_s():
    assert drawn_plot("a", 3, 6) == drawn_plot("a", 3, 6)
    drawn = {drawn_plot(f"{n}", 3, 6) for n in range(20)}
    assert len(drawn - {None}) > 15
    plot = drawn_plot("a", 3, 6)
    assert plot is not None
    assert len(plot.events) == 6
    assert len(plot.sides) == 3


def test_a_stage_follows_an_event():
    stage = Stage().after(StoryEvent("appear", 0, cell=(1, 2)))
    assert stage == Stage({0: (1, 2)}, {0: 0})
    assert stage.after(StoryEvent("grow", 0, cell=(1, 2))).levels == {0: 1}
    assert stage.after(StoryEvent("shrink", 0, cell=(1, 2))).levels == {0: -1}
    assert stage.after(StoryEvent("move", 0, way="up", cell=(0, 2))).cells == {0: (0, 2)}
    assert stage.after(StoryEvent("leave", 0, way="left", cell=(1, 2))) == Stage()
    assert stage.cells == {0: (1, 2)}  # as it was
    assert (1, 2) not in stage.free()
    assert len(stage.free()) == ROWS * COLUMNS - 1


def test_what_follows_what_leaves_out_who_appears():
    events = [StoryEvent(kind, 0) for kind in ("appear", "turn", "move", "appear", "grow", "turn")]
    assert Plot(tuple(events), (22,)).following() == [("turn", "move"), ("grow", "turn")]
