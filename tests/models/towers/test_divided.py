"""Divided attention: against loops in float64, beside the tower of pictures that it comes from, and its published
size."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, DividedViT, Trunk, ViT
from tests.models import oracle
from tests.models.towers import video_twin as twin
from tests.models.towers.test_vit import abstract, count

BLOCKS = Blocks(width=16, depth=2, heads=2, mlp_dim=24)
SMALL: Any = {"blocks": BLOCKS, "patch": (2, 4, 4), "frames": 6, "size": (8, 12)}
CLS: Any = SMALL | {"cls": True, "pooling": "cls"}


def expected(p: Any, video: np.ndarray, positions: str, cls: bool) -> np.ndarray:
    """The tokens of one video, place by place and step by step."""
    x = oracle.dense(p["stem"], twin.tubelets(video, (2, 4, 4)))
    steps, rows, columns, width = x.shape
    x = x.reshape(steps, rows * columns, width)
    first = p["cls"][None] if cls else np.zeros((0, width))
    space, time = None, None
    if positions == "learned":
        first = first + p["position"][: len(first)]
        x = x + p["position"][len(first) :] + p["temporal_position"][:steps, None]
    elif positions == "sincos":
        x = x + twin.plane(rows, columns, width) + twin.sequence(steps, width)[:, None]
    else:
        space = [(0, 0)] * len(first) + [(r, c) for r in range(rows) for c in range(columns)]
        time = [(t,) for t in range(steps)]
    for one in twin.layers(p["transformer"]):
        x = x.copy()
        for place in range(x.shape[1]):
            found = twin.attention(one["time"], oracle.layer_norm(one["norm_time"], x[:, place]), time)
            x[:, place] += oracle.dense(one["time_out"], found)
        firsts, branches = [], []
        for step in x:
            read = oracle.layer_norm(one["norm_attention"], np.concatenate([first, step]))
            found = twin.attention(one["attention"], read, space)
            firsts.append(found[: len(first)])
            branches.append(found[len(first) :])
        first, x = first + sum(firsts) / steps, x + np.stack(branches)
        whole = np.concatenate([first, x.reshape(-1, width)])
        whole = whole + oracle.mlp(one["mlp"], oracle.layer_norm(one["norm_mlp"], whole), "gelu")
        first, x = whole[: len(first)], whole[len(first) :].reshape(x.shape)
    return oracle.layer_norm(p["transformer"]["norm"], np.concatenate([first, x.reshape(-1, width)]))


@pytest.mark.parametrize(("positions", "cls"), [("learned", True), ("sincos", False), ("rotary", True)])
def test_every_token_equals_float64_numpy_with_frames_that_are_not_real(positions: Any, cls: bool) -> None:
    x, mask = twin.padded()
    tower: Any = DividedViT(**SMALL, positions=positions, cls=cls, pooling="mean")
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    tokens, real = oracle.apply(tower, params, x, mask, method="tokens")
    alone, all_real = oracle.apply(tower, params, x[:, : twin.REAL], method="tokens")
    few = cls + 12
    assert (real.sum(1).tolist(), real[:, :few].all(), all_real.all()) == ([few, few], True, True)
    for row in range(2):
        want = expected(p, x[row, : twin.REAL], positions, cls)
        np.testing.assert_allclose(alone[row], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(tokens[row, :few], want, rtol=1e-5, atol=1e-5)
    embedding = oracle.apply(tower, params, tokens, real, method="pool")
    np.testing.assert_allclose(embedding, alone.mean(1), atol=1e-5)


def test_values_of_frames_that_are_not_real_are_never_read() -> None:
    x, mask = twin.padded()
    tower: Any = DividedViT(**CLS)
    x = np.asarray(x, np.float32) / 255
    params = oracle.params_of(tower, x)
    got = oracle.apply(tower, params, np.where(mask[:, :, None, None, None], x, np.nan), mask)
    np.testing.assert_array_equal(got, oracle.apply(tower, params, x, mask))


def test_the_order_of_frames_is_read() -> None:
    tower: Any = DividedViT(**CLS | {"patch": (1, 4, 4)}, positions="rotary")
    x = twin.videos()
    params = oracle.params_of(tower, x)
    assert np.abs(oracle.apply(tower, params, x) - oracle.apply(tower, params, x[:, [1, 0, 2, 3, 4, 5]])).max() > 1e-3


def test_at_first_it_is_the_tower_of_pictures() -> None:
    """With one frame exactly; the parameters along space have a ViT's names, and those along time add nothing."""
    x = twin.videos()
    tower: Any = DividedViT(**CLS | {"patch": (1, 4, 4)})
    start = jax.jit(lambda: tower.init(jax.random.key(0), x))()["params"]
    blocks = start["transformer"]["blocks"]
    assert not start["temporal_position"].value.any()
    assert not blocks["time_out"]["kernel"].value.any()
    assert blocks["time"]["out"]["kernel"].value.any()
    picture: Any = ViT(blocks=BLOCKS, patch=4, size=(8, 12), cls=True, pooling="cls")
    params = oracle.params_of(picture, x[:, 0])["params"]
    own = oracle.params_of(tower, x)["params"]
    mixed = jax.tree.map(lambda leaf: leaf, own)
    mixed["transformer"]["blocks"] |= params["transformer"]["blocks"]
    mixed |= {name: params[name] for name in ("stem", "position", "cls")}
    mixed["transformer"]["norm"] = params["transformer"]["norm"]
    alone = jax.tree.map(np.zeros_like, {"temporal_position": own["temporal_position"]})
    mixed |= alone
    mixed["transformer"]["blocks"]["time_out"] = jax.tree.map(np.zeros_like, mixed["transformer"]["blocks"]["time_out"])
    got, _ = oracle.apply(tower, {"params": mixed}, x[:, :1], method="tokens")
    want, _ = oracle.apply(picture, {"params": params}, x[:, 0], method="tokens")
    np.testing.assert_allclose(got, want, atol=1e-5)
    still = np.repeat(x[:, :1], 6, axis=1)  # of a still video each step is that picture
    many, _ = oracle.apply(tower, {"params": mixed}, still, method="tokens")
    np.testing.assert_allclose(many[:, 0], want[:, 0], atol=1e-5)
    np.testing.assert_allclose(many[:, -6:], want[:, 1:], atol=1e-5)


def test_hidden_patches_are_the_mask_token() -> None:
    x = twin.videos()
    tower: Any = DividedViT(**CLS, mask_token=True)
    hidden = np.zeros((2, 18), bool)
    hidden[:, 7] = True
    params = oracle.params_of(tower, x)
    params["params"]["mask"] = np.ones(16, np.float32)
    other = x.copy()
    other[:, 2:4, :4, 4:8] = 9  # the tubelet of step 1, row 0, column 1
    got, _ = oracle.apply(tower, params, x, hidden=hidden, method="tokens")
    np.testing.assert_array_equal(got, oracle.apply(tower, params, other, hidden=hidden, method="tokens")[0])
    assert np.abs(got - oracle.apply(tower, params, x, method="tokens")[0]).max() > 1e-3


def test_published_parameters() -> None:
    """TimeSformer's, with its head of 400 classes."""
    blocks = Blocks(width=768, depth=12, heads=12)
    tower: Any = DividedViT(blocks=blocks, patch=(1, 16, 16), frames=8, size=224, cls=True, pooling="cls")
    assert count(abstract(tower, np.zeros((1, 8, 224, 224, 3), np.uint8))) + 768 * 400 + 400 == 121_566_352


def test_what_it_does_not_have_is_an_error() -> None:
    x, keep = twin.videos(), np.zeros((2, 3), np.int32)
    with pytest.raises(UserError, match=r"a DividedViT attends along whole steps .* take a TubeletViT"):
        oracle.apply(DividedViT(**CLS), oracle.params_of(DividedViT(**CLS), x), x, keep=keep, method="tokens")
    with pytest.raises(UserError, match="a DividedViT has blocks of its own: leave trunk out"):
        abstract(DividedViT(trunk=Trunk(blocks=BLOCKS), **SMALL, pooling="mean"), x)
