"""Rotary positions as RoFormer has them."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.layers.rotary import angles, rotate

torch = pytest.importorskip("torch")


def test_queries_and_keys_are_roformers():
    from transformers.models.roformer.modeling_roformer import (
        RoFormerSelfAttention,
        RoFormerSinusoidalPositionalEmbedding,
    )

    query, key = (np.random.default_rng(seed).standard_normal((2, 3, 9, 16)).astype(np.float32) for seed in (0, 1))
    table = RoFormerSinusoidalPositionalEmbedding(9, 16)
    table.weight.data = table.create_weight()
    places = table(torch.Size([2, 9]), 0)[None, None]
    theirs = RoFormerSelfAttention.apply_rotary_position_embeddings(places, torch.tensor(query), torch.tensor(key))
    for mine, other in zip((query, key), theirs, strict=True):
        got = rotate(jnp.asarray(mine), angles(np.arange(9)[:, None], 16))
        np.testing.assert_allclose(got, other.detach().numpy(), atol=2e-6)
