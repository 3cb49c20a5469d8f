"""The tower of regions equals float64 numpy on the real regions alone, and says what doesn't fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Regions, Trunk
from mmjax.models.towers.bare import Incoming
from tests.models import oracle

F, N, WIDTH = 5, 6, 8
BLOCKS = Blocks(width=WIDTH, depth=1, heads=2, norm_eps=1e-6)
NONE = Blocks(width=WIDTH, depth=0, heads=2, norm="post", norm_eps=1e-12, inits="bert")
LXMERT: dict[str, Any] = {"features": F, "blocks": BLOCKS}
VILBERT: dict[str, Any] = {"features": F, "joined": "sum", "area": True, "whole": True, "pooling": "cls"}


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Three pictures of 6, 3 and 1 regions; what isn't real is large."""
    random = np.random.default_rng(0)
    features = random.normal(size=(3, N, F))
    corners = np.sort(random.uniform(size=(3, N, 2, 2)), axis=2).reshape(3, N, 4)
    mask = np.arange(N) < np.array([[6], [3], [1]])
    x = np.concatenate([features, corners], axis=2)
    return np.where(mask[..., None], x, 90 + x).astype(np.float32), mask


def twin(tower: Any, p: Any, x: Any, eps: float) -> np.ndarray:
    """The tokens before the blocks of one picture's real regions, one by one."""
    if tower.whole:
        x = np.concatenate([[np.concatenate([x[:, :F].mean(axis=0), [0, 0, 1, 1]])], x])
    found = []
    for row in x:
        f, (left, upper, right, lower) = row[:F], row[F:]
        box = np.array([left, upper, right, lower] + [(right - left) * (lower - upper)] * tower.area)
        what, where = oracle.dense(p["stem"], f), oracle.dense(p["place"], box)
        if tower.joined == "mean":
            norms = oracle.layer_norm(p["norm_stem"], what, eps), oracle.layer_norm(p["norm_place"], where, eps)
            found.append((norms[0] + norms[1]) / 2)
        else:
            found.append(oracle.layer_norm(p["norm_stem"], what + where, eps))
    return np.stack(found)


@pytest.mark.parametrize(
    "tower",
    [Regions(**LXMERT), Regions(**VILBERT, blocks=NONE), Regions(**VILBERT, blocks=BLOCKS)],
    ids=["lxmert", "vilbert", "vilbert with blocks"],
)
def test_it_equals_float64_numpy_on_the_real_regions_alone(tower: Any) -> None:
    x, mask = rows()
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    tokens, real = oracle.apply(tower, params, x, mask, method="tokens")
    pooled = oracle.apply(tower, params, x, mask)
    assert tokens.shape == (3, N + tower.prefix, WIDTH)
    for row in range(3):
        expected = twin(tower, p, np.float64(x[row][mask[row]]), tower.blocks.norm_eps)
        if tower.blocks.depth:
            held = jax.tree.map(lambda leaf: leaf[0], p["transformer"]["blocks"])
            expected = oracle.block(held, expected, np.ones((len(expected),) * 2, bool))
            expected = oracle.layer_norm(p["transformer"]["norm"], expected)
        np.testing.assert_array_equal(real[row], np.pad(mask[row], (tower.prefix, 0), constant_values=True))
        np.testing.assert_allclose(tokens[row][real[row]], expected, rtol=0, atol=1e-5)
        embedding = expected[0] if tower.pooling == "cls" else expected.mean(axis=0)
        np.testing.assert_allclose(pooled[row], embedding, rtol=0, atol=1e-5)


def test_without_blocks_there_are_no_parameters_of_blocks() -> None:
    params = oracle.params_of(Regions(**VILBERT, blocks=NONE), rows()[0])["params"]
    assert set(params) == {"stem", "place", "norm_stem"}


def test_kept_regions_are_encoded_as_if_there_were_no_others() -> None:
    x, mask = rows()
    tower = Regions(**VILBERT, blocks=BLOCKS)
    params = oracle.params_of(tower, x)
    keep = np.array([[1, 4, -1], [0, 2, -1], [0, -1, -1]])
    tokens, real = oracle.apply(tower, params, x, mask, keep, method="tokens")
    alone = np.stack([x[row][np.maximum(keep[row], 0)] for row in range(3)])
    expected, _ = oracle.apply(tower, params, alone, keep >= 0, method="tokens")
    np.testing.assert_array_equal(real, np.pad(keep >= 0, ((0, 0), (1, 0)), constant_values=True))
    np.testing.assert_allclose(tokens[real], expected[real], rtol=0, atol=1e-6)


def test_other_features_keep_their_boxes() -> None:
    x, mask = rows()
    tower = Regions(**LXMERT)
    features, real = tower.patches(jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_array_equal(features, x[..., :F])
    np.testing.assert_array_equal(real, mask)
    again = tower.with_patches(jnp.asarray(x), 2 * features)
    np.testing.assert_array_equal(again, np.concatenate([2 * x[..., :F], x[..., F:]], axis=2))


def test_through_a_trunk_regions_are_told_apart_by_a_vector() -> None:
    x, mask = rows()
    tower = Regions(features=F, trunk=Trunk(blocks=BLOCKS), pooling="cls")
    params = oracle.params_of(tower, x)
    front, real = oracle.apply(tower, params, x, mask, method="front")
    expected = twin(tower, oracle.as64(params)["params"], np.float64(x[1][mask[1]]), 1e-6) + params["params"]["kind"]
    np.testing.assert_allclose(front[1][real[1]], expected, rtol=0, atol=1e-5)
    assert oracle.apply(tower, params, x, mask, method="tokens")[0].shape == (3, N + 1, WIDTH)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joined": "both"}, "joined='both'"),
        ({"pooling": "cls"}, "pooling='cls' needs whole=True"),
        ({"whole": True, "trunk": Trunk(blocks=BLOCKS), "blocks": None}, "so set whole=False"),
        ({"features": 7}, "regions of 9 numbers, and features=7 with a box of 4: set features to 5"),
    ],
)
def test_fields_that_can_t_be_are_refused(fields: Any, message: str) -> None:
    tower = Regions(**(LXMERT | fields))
    with pytest.raises(UserError, match=message):
        jax.eval_shape(tower.init, jax.random.key(0), rows()[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Incoming((N, F + 4), "float64"), r"t reads regions float32\[N, 9\], and data.transforms gives float64"),
        (Incoming((32, 32, 3), "uint8"), "end the chain in ReadRegions"),
        (Incoming((N, 12), "float32"), r"t.features=5 reads regions of 9 .* set t.features=8"),
    ],
)
def test_other_inputs_are_refused(given: Incoming, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Regions(**LXMERT).check_input("t", given)
    Regions(**LXMERT).check_input("t", Incoming((N, F + 4), "float32"))
