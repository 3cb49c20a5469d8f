"""What the compiled program of blocks moves beside arithmetic: transposes, copies, and writes into stacked arrays."""

import math
import re
from collections import Counter
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from mmjax.models.layers.activations import ACTIVATIONS
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.transformer import Transformer
from mmjax.train.plan.hlo import parse_program, runs
from mmjax.train.plan.kernels import COPIES, WRITES, kernel

BATCH, LENGTH, WIDTH, DEPTH = 16, 18, 16, 3
TOKENS = BATCH * LENGTH  # many more than the width, so that an array of tokens is told from one of parameters
# In passes over all tokens of a block. Queries, keys and values are brought to their heads and back; with tokens as
# `[b n d]` there were 84.
MOST_COPIES = 64


def moved(**fields) -> Counter[str]:
    """Passes over all tokens (each read or written once) a block, by class of kernels, in a forward and backward pass
    compiled for the CPU."""
    model = Transformer(Blocks(width=WIDTH, depth=DEPTH, heads=2, **fields))
    x = jax.ShapeDtypeStruct((BATCH, LENGTH, WIDTH), jnp.float32)
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
    step = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.sin(jnp.asarray(model.apply(params, x))))))
    text = step.lower(params, x).compile().as_text()
    assert text is not None
    computations, entry = parse_program(text)
    found: Counter[str] = Counter()
    for name, times in runs(computations, entry).items():
        for each in () if times.fused else computations[name].values():
            sizes = [math.prod(map(int, sizes.split(","))) for sizes in re.findall(r"\[([\d,]+)\]", each.type)]
            if sizes and max(sizes) >= TOKENS * WIDTH and max(sizes) % TOKENS == 0:
                counted = kernel(each, computations[name], computations)
                if counted is not None:
                    found[counted.kind] += counted.bytes * times.count
    return Counter({kind: round(size / (4 * TOKENS * WIDTH * DEPTH)) for kind, size in found.items()})


@pytest.fixture(scope="module")
def looped():
    return moved(remat="dots")


def test_a_loop_stacks_what_is_kept_and_nothing_else(looped):
    """A block's input, query, key and value, the attention's projection, and the MLP's, four times as wide: each is
    read and written once."""
    assert looped[WRITES] == 2 * (1 + 3 + 1 + 4)


def test_without_a_loop_nothing_is_stacked():
    unrolled = moved(remat="dots", unroll=DEPTH)
    assert unrolled[WRITES] == 0
    assert unrolled[COPIES] < MOST_COPIES


def test_tokens_stay_in_one_layout(looped):
    assert looped[COPIES] < MOST_COPIES


def test_of_an_activation_its_input_alone_is_stacked():
    """Without remat: of arrays as wide as the MLP two are, the activation's input and its result; autodiff of GELU
    keeps others, too."""
    with_it = moved(remat=None)[WRITES]
    with mock.patch.dict(ACTIVATIONS, gelu=partial(jax.nn.gelu, approximate=False)):
        by_autodiff = moved(remat=None)[WRITES]
    assert with_it <= by_autodiff - 2 * 4
