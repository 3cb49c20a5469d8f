"""The share of a run's time that went to its steps, reckoned with a clock of the test's own."""

import pytest

from mmjax.train import goodput
from mmjax.train.goodput import Goodput
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def test_start_data_saves_and_evaluation_are_no_steps(clock: Clock):
    run = Goodput(100.0)
    with run.apart("evaluation"):
        clock.now += 4  # before the first step: a part of the start
    clock.now += 6
    assert run.numbers(waited=3.0) == {"seconds": 10.0, "goodput": 0.0}
    run.started(waited=3.0)
    clock.now += 80
    with run.apart("saves"):
        clock.now += 4
    with run.apart("evaluation"):
        clock.now += 3
    run.started(waited=9.0)  # is only once
    clock.now += 3
    assert run.numbers(waited=6.0) == {"seconds": 100.0, "goodput": pytest.approx(0.80)}  # 90 - 4 - 3 - 3 of data
    told = "goodput 80% of 1:40; this time: steps 1:20, start 0:10, data 0:03, saves 0:04, evaluation 0:03"
    assert run.summary(waited=6.0) == told


def test_lives_before_count_with_what_they_left(clock: Clock):
    """100 s were spent, of which 60 in steps that are still there: the others were lost with the life."""
    run = Goodput(100.0, seconds=100.0, stepped=60.0)
    clock.now += 10
    run.started(waited=0.0)
    clock.now += 90
    assert run.numbers(waited=0.0) == {"seconds": 200.0, "goodput": pytest.approx(0.75)}


def test_what_fails_inside_is_counted_too(clock: Clock):
    run = Goodput(100.0)
    run.started(waited=0.0)

    def fails() -> None:
        with run.apart("saves"):
            clock.now += 5
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    clock.now += 5
    assert run.numbers(waited=0.0)["goodput"] == 0.5
