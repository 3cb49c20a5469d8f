"""GPT-2 trains as PyTorch's does: the same losses, step by step, from the same parameters on the same batches."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.benchmarks import gpt_sides as sides
from tests.benchmarks.gpt_beside_torch import compared

DECODER = "objectives.words.decoder"
SMALL = (
    f"{DECODER}.blocks.width=32", f"{DECODER}.blocks.depth=2", f"{DECODER}.blocks.dropout=0.0", "batch_size=8",
    "optimizer.warmup_steps=10", "optimizer.clip_norm=0.5", "steps=40",
)  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return sides.plan(3, *SMALL)


def test_losses_are_pytorch_s(made):
    """Through warm-up, decay and clip."""
    start = sides.in_torch(made, sides.first_params(made, seed=3))
    ours, theirs = sides.by_mmjax(made, seed=3), sides.by_torch(made, start)
    assert ours.losses[0] == pytest.approx(np.log(1_024), abs=0.2)
    assert ours.losses[-1] < ours.losses[0] - 0.5
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=1e-4)
    parameters = zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in parameters) < 1e-3
    found, other = (sides.perplexity(made, run.model) for run in (ours, theirs))
    assert found == pytest.approx(other, rel=1e-3)
    assert found < 600  # of 1,024 pieces


def test_the_goal_is_three_percent_of_the_means():
    runs = [{"mmjax": 10.0, "torch": 10.2}, {"mmjax": 11.0, "torch": 10.4}]
    assert compared(runs) == {"mmjax": 10.5, "torch": 10.3, "apart": 0.0194, "within": True}
    assert not compared([{"mmjax": 10.4, "torch": 10.0}])["within"]
    assert not compared([{"mmjax": 9.6, "torch": 10.0}])["within"]
