"""The published experiments have the published sizes; nothing of them is allocated."""

from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mmjax.data.pipeline import batch_spec
from mmjax.experiment import build, load_experiment

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("clip.py:vit_b32", 151_277_313),
        ("clip.py:vit_b16", 149_620_737),
        ("clip.py:vit_l14", 427_616_513),
        ("siglip.py:vit_b16", 203_155_970),
    ],
)
def test_parameters(name, parameters):
    built = build(load_experiment(f"{FOLDER}/{name}"))
    pretrainer = built.pretrainer()
    batch = {key: jnp.zeros(leaf.shape, leaf.dtype) for key, leaf in batch_spec(built.data, 2).items()}
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    variables = jax.eval_shape(lambda: pretrainer.init(rngs, batch))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == parameters
