"""Tubelets: against loops in float64, padding that changes nothing, published sizes, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Incoming, TubeletViT, ViT
from mmjax.models.towers.tubelets import with_real_frames
from tests.models import oracle
from tests.models.towers import video_twin as twin
from tests.models.towers.test_vit import abstract, count

BLOCKS = Blocks(width=16, depth=2, heads=2, mlp_dim=24)
SMALL: Any = {"blocks": BLOCKS, "patch": (2, 4, 4), "frames": 6, "size": (8, 12), "pooling": "mean"}
VIT_B = Blocks(width=768, depth=12, heads=12)


@pytest.mark.parametrize(("positions", "cls"), [("learned", True), ("sincos", False), ("rotary", True)])
def test_every_token_equals_float64_numpy_with_frames_that_are_not_real(positions: Any, cls: bool) -> None:
    tower: Any = TubeletViT(**SMALL, positions=positions, cls=cls)
    x, mask = twin.padded()
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    tokens, real = oracle.apply(tower, params, x, mask, method="tokens")
    alone, all_real = oracle.apply(tower, params, x[:, : twin.REAL], method="tokens")
    few = cls + 12
    assert (real.sum(1).tolist(), real[:, :few].all(), all_real.all()) == ([few, few], True, True)
    assert tower.grid(x) == (3, 2, 3)
    for row in range(2):
        patches = oracle.dense(p["stem"], twin.tubelets(x[row, : twin.REAL], (2, 4, 4)).reshape(12, -1))
        places = [(t, r, c) for t in range(2) for r in range(2) for c in range(3)]
        first = p["cls"][None] if cls else np.zeros((0, 16))
        if positions == "learned":
            first, patches = first + p["position"][:1], patches + p["position"][1:13]
        elif positions == "sincos":
            patches = patches + twin.sequence(12, 16)
        else:
            places = [(0, 0, 0), *places]
        turn = places if positions == "rotary" else None
        want = twin.transformer(p["transformer"], np.concatenate([first, patches]), turn)
        np.testing.assert_allclose(alone[row], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(tokens[row, :few], want, rtol=1e-5, atol=1e-5)
    embedding = oracle.apply(tower, params, tokens, real, method="pool")
    np.testing.assert_allclose(embedding, alone.mean(1), atol=1e-5)


def test_patches_come_step_by_step_row_by_row() -> None:
    tower: Any = TubeletViT(**SMALL | {"patch": (3, 4, 2), "positions": "none"})
    x = twin.videos()
    got, real = oracle.apply(tower, {}, x, method="patches")
    np.testing.assert_allclose(got[1], twin.tubelets(x[1], (3, 4, 2)).reshape(24, -1), atol=1e-6)
    assert real.all()
    floats = np.asarray(x, np.float32) / 127.5 - 1
    np.testing.assert_allclose(oracle.apply(tower, {}, floats, method="patches")[0], got, atol=1e-6)


def test_values_of_frames_that_are_not_real_are_never_read() -> None:
    """Also in a tubelet that has a real frame: the one before it stands there. Garbage may be NaN."""
    tower: Any = TubeletViT(**SMALL)
    x = np.asarray(twin.videos(), np.float32) / 255
    mask = np.arange(6) < np.array([[3], [4]])
    params = oracle.params_of(tower, x)
    got = oracle.apply(tower, params, np.where(mask[:, :, None, None, None], x, np.nan), mask)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, oracle.apply(tower, params, x, mask))
    repeated = np.concatenate([x[:1, :3], x[:1, 2:3]], axis=1)
    np.testing.assert_allclose(got[0], oracle.apply(tower, params, repeated)[0], atol=1e-5)

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(tower.apply(params, x, mask) ** 2)

    gradient = jax.jit(jax.grad(loss))(params, np.where(mask[:, :, None, None, None], x, np.nan))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_frame_that_is_missing_is_the_one_before_it() -> None:
    x = np.arange(10)[None].repeat(2, 0).reshape(2, 5, 2, 1, 1)
    mask = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    got = np.asarray(with_real_frames(jnp.asarray(x), jnp.asarray(mask)))[:, :, 0, 0, 0] // 2
    assert got.tolist() == [[1, 1, 1, 3, 3], [0, 0, 0, 0, 0]]


def test_the_order_of_frames_is_read() -> None:
    tower: Any = TubeletViT(**SMALL)
    x = twin.videos()
    params = oracle.params_of(tower, x)
    assert np.abs(oracle.apply(tower, params, x) - oracle.apply(tower, params, x[:, ::-1])).max() > 1e-2


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_kept_tubelets_stand_where_they_stood(positions: Any) -> None:
    """As in masked autoencoding: in another order they give the same vectors; empty slots and the rest aren't read."""
    tower: Any = TubeletViT(**SMALL, positions=positions)
    x = twin.videos()
    params = oracle.params_of(tower, x)
    whole, _ = oracle.apply(tower, params, x, method="tokens")
    keep = np.random.default_rng(0).permuted(np.arange(18)[None].repeat(2, 0), axis=1)
    moved, _ = oracle.apply(tower, params, x, keep=keep, method="tokens")
    np.testing.assert_allclose(moved, np.take_along_axis(whole, keep[..., None], axis=1), atol=1e-5)
    few, real = oracle.apply(tower, params, x, keep=np.array([[3, 17, -1], [5, 0, 9]]), method="tokens")
    assert real.tolist() == [[True, True, False], [True] * 3]
    alone, _ = oracle.apply(tower, params, x[:1], keep=np.array([[3, 17]]), method="tokens")
    np.testing.assert_allclose(few[0, :2], alone[0], atol=1e-5)
    _, mask = twin.padded()
    _, real = oracle.apply(tower, params, x, mask, keep=np.array([[3, 17], [5, 0]]), method="tokens")
    assert real.tolist() == [[True, False], [True, True]]  # tubelet 17 is of the last step


def test_frames_of_another_size_are_stretched_and_time_is_not() -> None:
    tower: Any = TubeletViT(**SMALL, positions="rotary")
    places = tower.coordinates((2, 4, 3)).reshape(2, 4, 3, 3)
    np.testing.assert_allclose(places[1, :, 0], [(1, 0, 0), (1, 0.5, 0), (1, 1, 0), (1, 1.5, 0)])
    assert (tower.turned(8, 3), tower.turned(64, 3), tower.turned(4, 3)) == (6, 60, 4)


def test_a_stem_of_the_central_frame_starts_as_a_picture_s() -> None:
    x = twin.videos(frames=6)
    fields = SMALL | {"patch": (3, 4, 4), "positions": "none"}
    tower: Any = TubeletViT(**fields, central_frame=True)
    kernel = np.asarray(jax.jit(lambda: tower.init(jax.random.key(0), x))()["params"]["stem"]["kernel"].value)
    frames = kernel.reshape(3, 48, 16)
    assert not frames[[0, 2]].any()
    assert np.std(frames[1]) == pytest.approx((2 / (48 + 16)) ** 0.5, rel=0.1)
    picture: Any = ViT(blocks=BLOCKS, patch=4, size=(8, 12), pooling="mean", positions="none")
    one = {"stem": {"kernel": frames[1], "bias": np.zeros(16, np.float32)}}
    many = {"stem": {"kernel": kernel, "bias": np.zeros(16, np.float32)}}
    got, _ = oracle.apply(tower, {"params": many}, x, method="front")
    want, _ = oracle.apply(picture, {"params": one}, x[:, 4], method="front")
    np.testing.assert_allclose(got[:, 6:], want, atol=1e-5)
    plain: Any = jax.jit(lambda: TubeletViT(**fields).init(jax.random.key(0), x))()
    assert plain["params"]["stem"]["kernel"].value.reshape(3, 48, 16).any(axis=(1, 2)).all()


def test_published_parameters() -> None:
    """ViViT's joint model with its head of 400 classes, and VideoMAE's encoder, whose keys have no bias."""
    video = np.zeros((1, 32, 224, 224, 3), np.uint8)
    vivit: Any = TubeletViT(blocks=VIT_B, patch=(2, 16, 16), frames=32, size=224, cls=True, pooling="cls")
    assert count(abstract(vivit, video)) + 768 * 400 + 400 == 88_954_000
    mae: Any = TubeletViT(blocks=VIT_B, patch=(2, 16, 16), frames=16, size=224, positions="sincos", pooling="mean")
    assert count(abstract(mae, video[:, :16])) == 86_227_200 + 12 * 768


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({}, (5, 8, 12), "5 frames of 8x12 pixels don't divide into tubelets of 2x4x4"),
        ({}, (6, 8, 10), "6 frames of 8x10 pixels don't divide into tubelets of 2x4x4"),
        ({}, (8, 8, 12), r"have \(4, 2, 3\) tubelets, but learned positions are for \(3, 2, 3\)"),
        ({}, (6, 8, 8), r"have \(3, 2, 2\) tubelets, but learned positions are for \(3, 2, 3\)"),
        ({"frames": 7}, (6, 8, 12), "7 frames of 8x12 pixels don't divide"),
        ({"patch": (0, 4, 4)}, (6, 8, 12), r"patch=\(0, 4, 4\) must be"),
        ({"positions": "rotary", "blocks": Blocks(width=8, depth=1, heads=2)}, (6, 8, 12), "a multiple of 6"),
    ],
)
def test_errors_say_what_would_do(fields: Any, shape: Any, message: str) -> None:
    tower: Any = TubeletViT(**SMALL | fields)
    with pytest.raises(UserError, match=message):
        abstract(tower, np.zeros((1, *shape, 3), np.uint8))
    if shape != (6, 8, 12):
        with pytest.raises(UserError, match=rf"towers.video has patch=\(2, 4, 4\), frames=6.*{message}"):
            tower.check_input("towers.video", Incoming((*shape, 3), "uint8"))


def test_what_a_chain_gives_must_fit() -> None:
    tower: Any = TubeletViT(**SMALL)
    tower.check_input("towers.video", Incoming((6, 8, 12, 3), "uint8"))
    TubeletViT(**SMALL, positions="sincos").check_input("towers.video", Incoming((4, 4, 4, 3), "uint8"))
    with pytest.raises(UserError, match=r"towers.video reads videos \[F, H, W, 3\], and .* gives uint8\[8, 12, 3\]"):
        tower.check_input("towers.video", Incoming((8, 12, 3), "uint8"))
    with pytest.raises(UserError, match=r"videos of 4 frames, .*set towers.video.frames=4, or the chain's frames to 6"):
        tower.check_input("towers.video", Incoming((4, 8, 12, 3), "uint8"))
