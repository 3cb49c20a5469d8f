"""A memory of slots: tokens are where they were stored, none of what falls beyond is seen, and attention is dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from mmjax.models.layers.memory import KeysValues, attend_memory, empty, stored

HEADS, SLOTS, SIZE = 2, 5, 4


def tokens(rows, count, seed):
    made = np.random.default_rng(seed).normal(size=(2, rows, HEADS, count, SIZE)).astype(np.float32)
    return KeysValues(*map(jnp.asarray, made))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("count", [1, 2])
def test_tokens_stand_in_their_slots_and_what_falls_beyond_is_lost(rows, count):
    memory, wanted = empty(rows, HEADS, SLOTS, SIZE, jnp.float32), np.zeros((2, rows, HEADS, SLOTS, SIZE))
    for turn, begin in enumerate((0, 3, 4, 5, 7)):
        new = tokens(rows, count, turn)
        slots = (begin + np.arange(rows))[:, None] % 8 + np.arange(count)
        memory = jax.jit(stored)(memory, new, jnp.asarray(slots))
        for row in range(rows):
            for place, slot in enumerate(slots[row]):
                if slot < SLOTS:
                    wanted[:, row, :, slot] = np.stack([part[row, :, place] for part in new])
    np.testing.assert_array_equal(np.stack(memory)[:, :, :, :SLOTS], wanted)


def test_attention_is_over_the_slots_that_are_seen():
    memory = stored(empty(2, HEADS, SLOTS, SIZE, jnp.float32), tokens(2, 7, 1), jnp.broadcast_to(jnp.arange(7), (2, 7)))
    query = np.random.default_rng(2).normal(size=(2, 2 * HEADS, 3, SIZE)).astype(np.float32)
    seen = np.random.default_rng(3).random((2, 3, SLOTS)) < 0.6
    seen[1, 2] = False
    found = attend_memory(jnp.asarray(query), memory, jnp.asarray(seen))
    key, value = (np.repeat(np.asarray(part, np.float64)[:, :, :SLOTS], 2, axis=1) for part in memory)
    logits = np.einsum("bhnk,bhmk->bhnm", query, key) / SIZE**0.5
    weights = softmax(np.where(seen[:, None], logits, -1e30), axis=-1) * seen[:, None]
    np.testing.assert_allclose(found, np.einsum("bhnm,bhmk->bhnk", weights, value), atol=1e-6)
    assert (np.asarray(found)[1, :, 2] == 0).all()
