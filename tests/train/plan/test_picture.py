"""The picture of plans: what can't be drawn is told before anything is."""

import pytest

from mmjax.errors import UserError
from mmjax.train.plan.picture import draw_plans


def test_an_ending_that_nobody_draws_is_told_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match=r"plan\.xyz can't be drawn: a picture may end in .*\.pdf, .*\.png"):
        draw_plans([], tmp_path / "plan.xyz")
    assert list(tmp_path.iterdir()) == []
