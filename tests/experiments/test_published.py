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
        ("audiomae.py:vit_b", 136_336_128),
    ],
)
def test_parameters(name, parameters):
    assert sum(sizes(f"{FOLDER}/{name}").values()) == parameters


@pytest.mark.parametrize(
    ("name", "width", "depth", "patch", "encoder", "whole"),
    [
        ("vit_b16", 768, 12, 16, 85_647_360, 111_655_680),
        ("vit_l16", 1024, 24, 16, 303_099_904, 329_239_296),
        ("vit_h14", 1280, 32, 14, 630_435_840, 656_613_964),
    ],
)
def test_mae_counts_encoder_and_decoder_in_closed_form(name, width, depth, patch, encoder, whole):
    """Fixed positions aren't parameters, the CLS and the mask token are."""

    def blocks(width, depth):
        return depth * (12 * width**2 + 13 * width) + 2 * width

    values = 3 * patch**2
    tower = values * width + width + width + blocks(width, depth)
    decoder = width * 512 + 512 + 512 + blocks(512, 8) + 512 * values + values
    assert (tower, tower + decoder) == (encoder, whole)
    assert sizes(f"{FOLDER}/mae.py:{name}") == {"towers_image": tower, "objectives_masked": decoder}


def test_audiomae_finetuned_is_mean_pooled_with_a_linear_head():
    """The number in AudioMAE's released log, for 527 classes."""
    config = load_experiment(f"{FOLDER}/audiomae.py:vit_b")
    config.towers["audio"].embed_dim, config.towers["audio"].projection_bias = 527, True
    tower = build(config.towers["audio"])
    assert tower.pooling == "mean"
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, tower.samples), jnp.int16)))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables)) == 85_659_407
    assert tower.grid(jnp.zeros((1, tower.samples), jnp.int16)) == (64, 8)


def sizes(name):
    """The parameters of each tower and objective."""
    built = build(load_experiment(name))
    pretrainer = built.pretrainer()
    batch = {key: jnp.zeros(leaf.shape, leaf.dtype) for key, leaf in batch_spec(built.data, 2).items()}
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    variables = jax.eval_shape(lambda: pretrainer.init(rngs, batch))
    return {part: sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in variables["params"].items()}
