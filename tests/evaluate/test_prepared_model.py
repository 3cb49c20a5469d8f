"""What evaluating, watching and embedding set up alike."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.evaluate import prepared_model as module
from mmjax.runtime import hosts


@pytest.mark.parametrize(
    ("leads", "source", "order"),
    [
        (True, "hf:google/siglip-base-patch16-224", ["all", "aloud", "all"]),
        (False, "hf:google/siglip-base-patch16-224", ["all", "all", "silent"]),  # it is in the cache by then
        (True, "runs/clip", ["all", "aloud", "all"]),
        (False, "runs/clip", ["all", "silent", "all"]),  # hosts read their disks at once
    ],
)
def test_host_0_fetches_what_has_a_name_before_the_others_and_alone_says_so(monkeypatch, leads, source, order):
    found: list[str] = []

    def together(function):
        found.append("all")
        return function()

    def resolve(source, *, step, code, say):
        say("fetched")
        found.append("aloud" if told else "silent")
        return SimpleNamespace(step=step)

    told: list[str] = []
    monkeypatch.setattr(hosts, "leads", lambda: leads)
    monkeypatch.setattr(hosts, "together", together)
    monkeypatch.setattr(module, "resolve", resolve)
    assert module.resolved(source, 7, told.append).step == 7
    assert found == order


def test_a_batch_is_rounded_up_to_what_all_devices_divide_and_the_mesh_is_set_while_variables_are_held(monkeypatch):
    monkeypatch.setattr(module, "SplitEmbedder", lambda *arguments: arguments)
    experiment: Any = SimpleNamespace(pretrainer=lambda: "pretrainer")
    made = [module.prepared_model(experiment, "data", size) for size in (1, 16, 20)]  # type: ignore[arg-type]
    assert jax.device_count() == 8
    assert [model.embedder[3] for model in made] == [8, 16, 24]  # type: ignore[index]
    with made[0].holding({"params": {"a": np.arange(3.0, dtype=np.float32)}}) as placed:
        assert jax.sharding.get_mesh() == made[0].mesh
    assert jax.sharding.get_mesh().empty
    assert len(placed["params"]["a"].sharding.device_set) == 8
    np.testing.assert_array_equal(placed["params"]["a"], np.arange(3.0))
