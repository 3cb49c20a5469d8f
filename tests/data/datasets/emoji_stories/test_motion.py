from itertools import pairwise

import pytest

from mmjax.data.datasets.emoji_stories.grammar import HEIGHT, WIDTH, middle
from mmjax.data.datasets.emoji_stories.motion import poses
from tests.data.datasets.emoji_stories.made import MET, plots

PARTS = [step / 30 for step in range(31)]


def told(plot, place, part):
    return {pose.role: pose for pose in poses(plot, plot.stages(), place, part)}


def test_an_event_begins_where_the_last_one_ended():
    for plot in plots(100):
        stages = plot.stages()
        for place, (before, after) in enumerate(pairwise(stages)):
            event = plot.events[place]
            for stage, part in ((before, 0.0), (after, 1.0)):
                for role, pose in told(plot, place, part).items():
                    if role not in stage.cells:  # it appears, or has left
                        assert role == event.actor
                        assert pose.opacity == 0 or abs(pose.x - WIDTH / 2) > (WIDTH + pose.side) / 2 - 1e-6
                        continue
                    assert (pose.x, pose.y) == pytest.approx(middle(stage.cells[role]))
                    assert pose.side == pytest.approx(plot.side(role, stage.levels[role]))
                    assert pose.angle == pytest.approx(0)
                    assert pose.opacity == 1


def test_all_stay_in_the_frame_but_who_leaves_and_touch_nobody_but_whom_they_meet():
    for plot in plots(100):
        for place, event in enumerate(plot.events):
            for part in PARTS:
                seen = poses(plot, plot.stages(), place, part)
                assert seen[-1].role == event.actor  # painted over the others
                for pose in seen:
                    half = pose.side / 2
                    if not (event.kind == "leave" and pose.role == event.actor):
                        assert half <= pose.x <= WIDTH - half
                    assert half <= pose.y <= HEIGHT - half
                for one, other in ((a, b) for a in seen for b in seen if a.role < b.role):
                    apart = max(abs(one.x - other.x), abs(one.y - other.y)) - (one.side + other.side) / 2
                    assert apart > -1e-6


def test_who_meets_another_goes_there_touches_it_and_draws_back():
    place = [event.kind for event in MET.events].index("meet")
    seen = [told(MET, place, part) for part in PARTS]
    gaps = [abs(each[0].x - each[1].x) - (each[0].side + each[1].side) / 2 for each in seen]
    touching = [part for part, gap in zip(PARTS, gaps, strict=True) if gap < 0.01]
    assert 0.4 < touching[0] < touching[-1] < 0.75
    assert touching[-1] - touching[0] > 0.09
    assert gaps[0] > 30  # from afar
    assert gaps[-1] == pytest.approx(32 - 23)
    assert len({(each[1].x, each[1].y) for each in seen}) == 1  # the other stands still


def test_each_kind_changes_what_it_says_and_nothing_else():
    changes = {"grow": {"side"}, "shrink": {"side"}, "turn": {"angle"}, "appear": {"opacity"}}
    for place, event in enumerate(MET.events):
        first, *others = (told(MET, place, part)[event.actor] for part in PARTS)
        changed = {
            name
            for other in others
            for name in first._fields
            if getattr(other, name) != pytest.approx(getattr(first, name))
        }
        wanted = changes.get(event.kind) or ({"y"} if event.way in ("up", "down") else {"x"})
        assert changed == wanted
        if event.kind in ("move", "leave"):
            last, sign = others[-1], -1 if event.way in ("left", "up") else 1
            assert sign * ((last.x - first.x) + (last.y - first.y)) > 20
        if event.kind in ("grow", "shrink"):
            assert others[-1].side / first.side == pytest.approx(1.25 if event.kind == "grow" else 0.8)
        if event.kind == "turn":
            angles = [each.angle for each in others]
            assert max(angles) > 300
            assert all(later >= earlier for earlier, later in pairwise(a for a in angles if a))


def test_one_is_seen_well_before_the_event_is_over():
    assert told(MET, 0, 0.0)[0].opacity == 0
    assert 0.4 < told(MET, 0, 0.2)[0].opacity < 0.6
    assert told(MET, 0, 0.41)[0].opacity == 1
