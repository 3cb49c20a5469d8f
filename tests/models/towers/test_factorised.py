"""The factorised encoder: against loops in float64, padding that changes nothing, and its published size."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, FactorisedViT, Trunk, ViT
from tests.models import oracle
from tests.models.towers import video_twin as twin
from tests.models.towers.test_vit import abstract, count

BLOCKS, TEMPORAL = Blocks(width=16, depth=2, heads=2, mlp_dim=24), Blocks(width=16, depth=1, heads=4)
SMALL: Any = {"blocks": BLOCKS, "temporal": TEMPORAL, "patch": (2, 4, 4), "frames": 6, "size": (8, 12)}


def expected(p: Any, video: np.ndarray, positions: str, cls: bool) -> np.ndarray:
    """The tokens of one video, each step alone before they meet."""
    found = []
    for number, step in enumerate(twin.tubelets(video, (2, 4, 4))):
        rows, columns, _ = step.shape
        x, places = oracle.dense(p["stem"], step.reshape(rows * columns, -1)), None
        first = p["cls"][None] if cls else np.zeros((0, 16))
        if positions == "learned":
            first, x = first + p["position"][: len(first)], x + p["position"][len(first) :]
        elif positions == "sincos":
            x = x + twin.plane(rows, columns, 16)
        else:
            places = [(0, 0)] * len(first) + [(r, c) for r in range(rows) for c in range(columns)]
        x = twin.transformer(p["transformer"], np.concatenate([first, x]), places)
        found.append(x[0] if cls else x.mean(0))
        if positions == "learned":
            found[-1] = found[-1] + p["temporal_position"][number + cls]
        elif positions == "sincos":
            found[-1] = found[-1] + twin.sequence(9, 16)[number]
    first = p["temporal_cls"][None] if cls else np.zeros((0, 16))
    first = first + p["temporal_position"][:1] if cls and positions == "learned" else first
    turn = [(0,)] * len(first) + [(t,) for t in range(len(found))] if positions == "rotary" else None
    return twin.transformer(p["temporal_transformer"], np.concatenate([first, np.stack(found)]), turn)


@pytest.mark.parametrize(("positions", "cls"), [("learned", True), ("sincos", False), ("rotary", True)])
def test_every_token_equals_float64_numpy_with_frames_that_are_not_real(positions: Any, cls: bool) -> None:
    x, mask = twin.padded()
    tower: Any = FactorisedViT(**SMALL, positions=positions, cls=cls, pooling="mean")
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    assert tower.grid(x) == (3,)
    tokens, real = oracle.apply(tower, params, x, mask, method="tokens")
    alone, all_real = oracle.apply(tower, params, x[:, : twin.REAL], method="tokens")
    few = cls + 2
    assert (real.sum(1).tolist(), real[:, :few].all(), all_real.all()) == ([few, few], True, True)
    for row in range(2):
        want = expected(p, x[row, : twin.REAL], positions, cls)
        np.testing.assert_allclose(alone[row], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(tokens[row, :few], want, rtol=1e-5, atol=1e-5)
    embedding = oracle.apply(tower, params, tokens, real, method="pool")
    np.testing.assert_allclose(embedding, alone.mean(1), atol=1e-5)


def test_values_of_frames_that_are_not_real_are_never_read() -> None:
    x, mask = twin.padded()
    tower: Any = FactorisedViT(**SMALL, cls=True, pooling="cls")
    x = np.asarray(x, np.float32) / 255
    params = oracle.params_of(tower, x)
    got = oracle.apply(tower, params, np.where(mask[:, :, None, None, None], x, np.nan), mask)
    np.testing.assert_array_equal(got, oracle.apply(tower, params, x, mask))


def test_the_order_of_steps_is_read_and_that_of_none_is_not() -> None:
    x = twin.videos()
    moved = x[:, [2, 3, 0, 1, 4, 5]]
    given: Any = {"learned": True, "rotary": True, "none": False}
    for positions, read in given.items():
        tower: Any = FactorisedViT(**SMALL, cls=True, pooling="cls", positions=positions)
        params = oracle.params_of(tower, x)
        apart = np.abs(oracle.apply(tower, params, x) - oracle.apply(tower, params, moved)).max()
        assert (apart > 1e-3) == read, positions
        assert read or apart < 1e-5


def test_space_has_the_parameters_of_a_tower_of_pictures() -> None:
    x = twin.videos()
    fields: Any = {"cls": True, "pooling": "cls"}
    own = oracle.params_of(FactorisedViT(**SMALL, **fields, pre_norm=True), x)["params"]
    picture: Any = ViT(blocks=BLOCKS, patch=4, size=(8, 12), **fields, pre_norm=True)
    theirs = oracle.params_of(picture, x[:, 0])["params"]
    shapes = jax.tree.map(np.shape, {name: part for name, part in own.items() if not name.startswith("temporal")})
    assert {**shapes, "stem": None} == {**jax.tree.map(np.shape, theirs), "stem": None}


def test_dropout_follows_each_example_s_key_and_differs_by_step() -> None:
    x = np.repeat(twin.videos(frames=1), 6, axis=1)
    blocks = Blocks(width=16, depth=1, heads=2, dropout=0.4)
    fields = SMALL | {"blocks": blocks, "temporal": Blocks(width=16, depth=0, heads=2)}
    tower: Any = FactorisedViT(**fields, cls=True, pooling="mean", positions="none")
    params = oracle.params_of(tower, x)
    keys = jax.random.split(jax.random.key(1), 2)
    both, _ = oracle.apply(tower, params, x, train=True, keys=keys, method="tokens")
    one, _ = oracle.apply(tower, params, x[1:], train=True, keys=keys[1:], method="tokens")
    np.testing.assert_allclose(one[0], both[1], atol=1e-5)
    assert np.abs(both[0, 1] - both[0, 2]).max() > 1e-2  # equal steps, other draws
    drawn, _ = tower.apply(params, x, train=True, rngs={"dropout": jax.random.key(0)}, method="tokens")
    assert np.abs(drawn - both).max() > 1e-2


def test_published_parameters() -> None:
    """ViViT-B/16x2's factorised encoder, with its head of 400 classes."""
    blocks, temporal = (Blocks(width=768, depth=depth, heads=12) for depth in (12, 4))
    tower: Any = FactorisedViT(
        blocks=blocks, temporal=temporal, patch=(2, 16, 16), frames=32, size=224, cls=True, pooling="cls"
    )
    assert count(abstract(tower, np.zeros((1, 32, 224, 224, 3), np.uint8))) + 768 * 400 + 400 == 115_062_928


def test_the_last_norm_may_be_of_the_pooled_token_alone() -> None:
    x = twin.videos()
    tower: Any = FactorisedViT(**SMALL, cls=True, pooling="cls", norm_pooled=True)
    params = oracle.params_of(tower, x)
    assert "norm" in params["params"]["transformer"]
    assert "norm" not in params["params"]["temporal_transformer"]
    p = oracle.as64(params)["params"]
    want = oracle.layer_norm(p["norm_post"], expected(p, x[0], "learned", True)[0])
    np.testing.assert_allclose(oracle.apply(tower, params, x)[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temporal": Blocks(width=8, depth=1, heads=2)}, "temporal.width=8, but blocks.width=16"),
        ({"cls": True, "distill": True}, "has no distill"),
        ({"mask_token": True}, "has no mask_token"),
        ({"trunk": Trunk(blocks=BLOCKS)}, "has blocks of its own: leave trunk out"),
    ],
)
def test_what_does_not_fit_is_an_error(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        abstract(FactorisedViT(**SMALL | {"pooling": "mean"} | fields), twin.videos())


def test_no_patch_can_be_left_out() -> None:
    tower: Any = FactorisedViT(**SMALL, pooling="mean")
    x = twin.videos()
    params = oracle.params_of(tower, x)
    with pytest.raises(UserError, match="attends along whole steps"):
        tower.apply(params, x, keep=np.zeros((2, 3), np.int32), method="tokens")
    with pytest.raises(UserError, match="are whole steps, of which no patch can be masked"):
        tower.apply(params, x, method="patches")
