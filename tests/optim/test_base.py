from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import UserError
from mmjax.optim.base import merge_params
from mmjax.optim.optimizers import AdamW

PARAMS = {
    "towers_image": {
        "stem": {"kernel": np.ones((4, 8), np.float32), "bias": np.ones(8, np.float32)},
        "blocks": {"mlp": {"kernel": np.full((2, 8, 8), 0.5, np.float32), "bias": np.ones((2, 8), np.float32)}},
        "position": np.ones((4, 8), np.float32),
    },
    "objectives_contrastive": {"log_scale": np.float32(2.0)},
}
UNDECAYED = {"bias", "position", "log_scale"}


def gradients(step: int):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)


def run(optimizer: AdamW, steps: int = 10, gradients=gradients):
    """Parameters after some steps of what a training step does with an optimiser."""
    params, total = PARAMS, 100
    transform = optimizer.transform(params)
    state, update_of = transform.init(params), jax.jit(transform.update)
    for step in range(steps):
        update, state = update_of(gradients(step), state, params)
        lr = np.asarray(optimizer.learning_rate(step, total))
        params = jax.tree.map(lambda p, u, lr=lr: p - lr * np.asarray(u), params, update)
    return params


def test_equals_optax_adamw_with_clipping_and_decay_by_name():
    optimizer = AdamW(1e-2, warmup_steps=4, weight_decay=0.1, b2=0.98, clip_norm=0.7)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, PARAMS)
    reference = optax.chain(
        optax.clip_by_global_norm(0.7),
        optax.adamw(
            lambda count: optimizer.learning_rate(jnp.asarray(count), 100), b1=0.9, b2=0.98, weight_decay=0.1, mask=mask
        ),
    )
    params, state, update_of = PARAMS, reference.init(PARAMS), jax.jit(reference.update)
    for step in range(10):
        update, state = update_of(gradients(step), state, params)
        params = jax.tree.map(lambda p, u: p + np.asarray(u), params, update)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), run(optimizer), params)


def test_decay_alone_shrinks_by_lr_times_decay_and_only_kernels():
    def zero(step):
        return jax.tree.map(np.zeros_like, PARAMS)

    params = run(AdamW(1e-2, weight_decay=0.1, schedule="constant"), steps=1, gradients=zero)
    np.testing.assert_allclose(params["towers_image"]["stem"]["kernel"], 1 - 1e-3, rtol=1e-6)
    np.testing.assert_array_equal(
        params["towers_image"]["blocks"]["mlp"]["bias"], 1
    )  # a scanned bias has two dimensions
    np.testing.assert_array_equal(params["towers_image"]["position"], 1)


def test_clipping_scales_a_large_gradient_to_the_norm_and_leaves_a_small_one():
    # Adam forgets the scale of a gradient, so clipping shows in the second moment.
    for size, clipped in ((10.0, 0.5), (0.25, 0.25)):
        gradient = {"kernel": np.array([[size]], np.float32)}
        transform = AdamW(1.0, clip_norm=0.5).transform(gradient)
        _, state = transform.update(gradient, transform.init(gradient), gradient)
        np.testing.assert_allclose(optax.tree.get(state, "nu")["kernel"], 0.02 * clipped**2, rtol=1e-6)


def test_learning_rate_warms_up_and_falls_along_a_cosine_to_its_end():
    optimizer = AdamW(1e-3, warmup_steps=10, end_lr=1e-4)

    def rate(step):
        return float(jax.jit(optimizer.learning_rate, static_argnums=1)(jnp.int32(step), 110))

    assert rate(0) == pytest.approx(1e-4)
    assert rate(4) == pytest.approx(5e-4)
    assert rate(9) == rate(10) == pytest.approx(1e-3)
    assert rate(60) == pytest.approx(5.5e-4)
    assert rate(110) == rate(500) == pytest.approx(1e-4)


def test_constant_schedule_and_no_warmup():
    assert float(AdamW(1e-3, schedule="constant").learning_rate(99, 100)) == pytest.approx(1e-3)
    assert float(AdamW(1e-3).learning_rate(0, 100)) == pytest.approx(1e-3)


def test_scale_multiplies_the_learning_rate_by_path():
    plain = run(AdamW(1e-2, weight_decay=0.1), steps=1)
    scaled = run(AdamW(1e-2, weight_decay=0.1, scale={"^towers_image": 0.5, "stem": 0.2}), steps=1)
    moved = jax.tree.map(lambda a, b, p: (np.asarray(b) - p) / (np.asarray(a) - p), plain, scaled, PARAMS)
    np.testing.assert_allclose(moved["towers_image"]["stem"]["kernel"], 0.1, rtol=1e-4)
    np.testing.assert_allclose(moved["towers_image"]["blocks"]["mlp"]["kernel"], 0.5, rtol=1e-4)
    np.testing.assert_allclose(moved["objectives_contrastive"]["log_scale"], 1, rtol=1e-4)


def test_split_parts_what_is_frozen_and_merge_puts_it_back():
    trainable, frozen = AdamW(1e-3, frozen=("^towers_image/blocks", "position")).split(PARAMS)
    assert set(frozen["towers_image"]) == {"blocks", "position"}
    assert set(trainable["towers_image"]) == {"stem"}
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, merge_params(trainable, frozen), PARAMS))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"frozen": ("^towers_imgae/",)}, "towers_image"),
        ({"frozen": ("towers_image/blocks/mpl",)}, "towers_image/blocks/mlp"),
        ({"scale": {"postion": 0.1}}, "position"),
        ({"no_decay": ("zzz",)}, "objectives_contrastive, towers_image"),
        ({"frozen": ("(",)}, "not a regular expression"),
        ({"frozen": ("",)}, "no parameter to train"),
    ],
)
def test_bad_expressions_are_errors_that_name_the_nearest_path(fields, named):
    with pytest.raises(UserError, match=named):
        AdamW(1e-3, **fields).split(PARAMS)


def test_bad_schedules_are_errors():
    with pytest.raises(UserError, match="warmup_steps=100 must be less than the run's 100"):
        AdamW(1e-3, warmup_steps=100).learning_rate(0, 100)
    with pytest.raises(UserError, match="must be cosine, linear, constant, rsqrt or steps; did you mean cosine"):
        AdamW(1e-3, schedule="cosin").learning_rate(0, 100)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peak_lr": 0.0}, "peak_lr=0.0 must be above 0"),
        ({"clip_norm": 0.0}, "clip_norm=0.0 must be above 0"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must be at least 0"),
        ({"b2": 1.0}, "b2=1.0 must be at least 0 and below 1"),
        ({"schedule": "step"}, "schedule='step' must be cosine"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_runs(fields, message):
    with pytest.raises(UserError, match=message):
        AdamW(**{"peak_lr": 1e-3, **fields})


STACKS = {
    "towers_image": {
        "stem": {"kernel": np.ones((4, 8), np.float32)},
        "transformer": {
            "blocks": {"mlp": {"in": {"kernel": np.ones((3, 8, 8), np.float32), "bias": np.ones((3, 8), np.float32)}}},
            "norm": {"scale": np.ones(8, np.float32)},
        },
        "projection": {"kernel": np.ones((8, 2), np.float32)},
    },
    "towers_text": {"transformer": {"blocks": {"kernel": np.ones((2, 8, 8), np.float32)}}},
}


def test_layer_decay_gives_each_block_its_share():
    optimizer = AdamW(1.0, layer_decay={"towers_image": 0.5}, scale={"stem": 2.0}, eps=0.0, clip_norm=None)
    transform = optimizer.transform(STACKS)
    ones = jax.tree.map(np.ones_like, STACKS)
    update: Any = jax.tree.map(np.asarray, jax.jit(transform.update)(ones, transform.init(STACKS), STACKS)[0])
    image, text = update["towers_image"], update["towers_text"]
    blocks = image["transformer"]["blocks"]["mlp"]["in"]
    for layer, share in enumerate((1 / 8, 1 / 4, 1 / 2)):  # of three blocks the last has g, the first g^3
        np.testing.assert_allclose(blocks["kernel"][layer], share, rtol=1e-5)
        np.testing.assert_allclose(blocks["bias"][layer], share, rtol=1e-5)
    np.testing.assert_allclose(image["stem"]["kernel"], 2 / 16, rtol=1e-5)
    np.testing.assert_allclose(image["transformer"]["norm"]["scale"], 1, rtol=1e-5)
    np.testing.assert_allclose(image["projection"]["kernel"], 1, rtol=1e-5)
    np.testing.assert_allclose(text["transformer"]["blocks"]["kernel"], 1, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 1.5, -1.0])
def test_a_layer_decay_that_cannot_be_is_an_error(factor):
    with pytest.raises(UserError, match="must be above 0, and 1 at most"):
        AdamW(1e-3, layer_decay={"towers_image": factor})
