"""What `attention="auto"` takes, by what is compiled for: devices that need not be there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.layers import attentions
from mmjax.models.layers.attention import attend
from mmjax.models.layers.attentions import ATTENTIONS, Choice, attend_auto, choices, suitable
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.tpu_attention import MOST_KEYS
from tests.models.layers.test_attention import of_one

HALF, SINGLE = jnp.dtype("bfloat16"), jnp.dtype("float32")


@pytest.mark.parametrize(
    ("platform", "queries", "keys", "size", "dtype", "name"),
    [
        ("tpu", 197, 197, 64, HALF, "pallas"),
        ("tpu", 197, 197, 72, HALF, "pallas"),
        ("tpu", 197, 197, 64, SINGLE, "plain"),
        ("tpu", 64, 64, 64, HALF, "plain"),
        ("tpu", 1, 577, 64, HALF, "plain"),
        ("tpu", 197, MOST_KEYS + 1, 64, HALF, "plain"),
        ("gpu", 197, 197, 64, HALF, "cudnn"),
        ("gpu", 197, 197, 64, SINGLE, "plain"),
        ("gpu", 197, 197, 36, HALF, "plain"),
        ("cpu", 197, 197, 64, HALF, "plain"),
    ],
)
def test_the_kernel_that_suits(platform, queries, keys, size, dtype, name):
    with jax.sharding.use_abstract_mesh(of_one(platform)):
        choice = suitable(queries, keys, size, dtype)
    assert choice.name == name
    assert choice[:2] == (queries, keys)
    assert choice.reason


@pytest.mark.parametrize(("capability", "name"), [("7.5", "plain"), ("8.0", "cudnn"), (None, "plain")])
def test_of_a_gpu_that_is_there_it_asks_whether_it_has_the_kernel(monkeypatch, capability, name):
    device = type("Device", (), {} if capability is None else {"compute_capability": capability})()
    monkeypatch.setattr(attentions.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(attentions.jax, "devices", lambda: [device])
    assert suitable(197, 197, 64, HALF).name == name


def test_it_is_what_it_took_and_says_so():
    query, key, value = (jnp.asarray(np.random.default_rng(n).standard_normal((2, 3, 5, 8)), HALF) for n in range(3))
    with choices() as found:
        attended = [attend_auto(query, key, value) for _ in range(2)]
    assert found == [Choice(5, 5, "plain", "no kernel for 'cpu'")]
    np.testing.assert_array_equal(attended[0], attend(query, key, value))
    attend_auto(query, key, value)
    assert len(found) == 1  # it listens no longer


def test_blocks_take_it_unless_told():
    blocks = Blocks(width=8, depth=1, heads=1)
    assert ATTENTIONS[blocks.attention] is attend_auto
    # Records of before name `plain`, which was the default then: nobody chose it.
    assert Blocks(width=8, depth=1, heads=1, attention="plain").set_among(["attention"]) == []
    assert Blocks(width=8, depth=1, heads=1, attention="cudnn").set_among(["attention"]) == ["attention='cudnn'"]
