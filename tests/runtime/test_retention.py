"""Which checkpoints stay, against what a reader of the rule would say."""

from dataclasses import dataclass

import pytest

from mmjax.errors import UserError
from mmjax.runtime.retention import Best, Keeping


@dataclass
class Info:
    step: int


def kept(policy: Keeping, *steps: int) -> list[int]:
    infos = [Info(step) for step in steps]
    return [info.step for info, stays in zip(infos, policy.should_preserve(infos), strict=True) if stays]


SCORES = {10: 0.3, 20: 0.5, 30: 0.5, 40: 0.1, 50: None}


def evaluations(step):
    return {"validation": {"R@1": SCORES[step]}} if step in SCORES else {}


def test_the_latest_stay():
    assert kept(Keeping(2), 10, 20, 30) == [20, 30]
    assert kept(Keeping(2), 30, 10, 20) == [30, 20]
    assert kept(Keeping(5), 10) == [10]


def test_every_kth_stays_for_ever():
    assert kept(Keeping(1, every=20), 10, 20, 30, 40, 50) == [20, 40, 50]


def test_the_best_stay_and_of_equal_ones_the_later():
    best = Best("validation", "R@1", 1)
    assert kept(Keeping(1, best=best, evaluations=evaluations), 10, 20, 30, 40, 50, 60) == [30, 60]
    two = Best("validation", "R@1", 2)
    assert kept(Keeping(1, best=two, evaluations=evaluations), 10, 20, 30, 40) == [20, 30, 40]
    low = Best("validation", "R@1", 1, lowest=True)
    assert kept(Keeping(1, best=low, evaluations=evaluations), 10, 20, 40, 60) == [40, 60]


def test_what_was_never_evaluated_is_not_among_the_best():
    assert kept(Keeping(1, best=Best("test", "R@1"), evaluations=evaluations), 10, 20) == [20]


def test_none_of_the_best_is_refused():
    with pytest.raises(UserError, match=r"Best\(count=0\)"):
        Best("validation", "R@1", 0)


def test_what_is_held_stays():
    policy = Keeping(1, best=Best("test", "R@1"), evaluations=evaluations).holding([10, 20, 30])
    assert policy.held == {10, 20}
    assert kept(policy, 10, 20, 30, 40) == [10, 20, 40]


def test_what_is_held_competes_once_its_score_is_known():
    scores = {}
    policy = Keeping(1, best=Best("test", "R@1"), evaluations=lambda step: {"test": {"R@1": scores.get(step)}})
    policy = policy.holding([10, 20, 30])
    scores |= {10: 0.2, 20: 0.4}  # a watcher's
    assert kept(policy, 10, 20, 30, 40) == [20, 40]
