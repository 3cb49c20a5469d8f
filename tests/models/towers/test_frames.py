"""Frames by an image tower: against the tower itself frame by frame, padding that changes nothing, the tower shared
with pictures, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Convolutional, Frames, Incoming, TextTransformer, ViT
from mmjax.objectives import Contrastive, Pretrainer
from tests.models import oracle
from tests.models.towers import video_twin as twin
from tests.models.towers.test_vit import abstract
from tests.objectives.toys import STEM, assert_same, stems

BLOCKS = Blocks(width=16, depth=1, heads=2, mlp_dim=24)
PICTURE: Any = ViT(blocks=BLOCKS, patch=4, size=(8, 12), cls=True, pooling="cls", embed_dim=8)
TIME = Blocks(width=8, depth=2, heads=2)
PATCHES = Blocks(width=16, depth=1, heads=2)
TOWERS: dict[str, Any] = {
    "mean": Frames(frame=PICTURE),
    "unit": Frames(frame=PICTURE, unit=True, embed_dim=5),
    "patches": Frames(frame=PICTURE, patch_tokens=True),
    "transformer": Frames(frame=PICTURE, frames=6, blocks=TIME),
    "residual": Frames(frame=PICTURE, frames=7, blocks=TIME, residual=True, unit=True),
    "map": Frames(frame=PICTURE, frames=6, blocks=TIME, pooling="map", embed_dim=5),
    "all": Frames(frame=PICTURE, frames=6, blocks=PATCHES, patch_tokens=True),
}


def expected(tower: Any, p: Any, tokens: np.ndarray, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens and the embedding of one video, from the image tower's tokens and embeddings of its frames."""
    x = tokens if tower.patch_tokens else embeddings[:, None]
    if tower.blocks is not None:
        first = x
        x = (x + p["position"][: len(x), None]).reshape(-1, x.shape[-1])
        x = twin.transformer(p["transformer"], x)
        x = x + first.reshape(x.shape) if tower.residual else x
    x = x.reshape(-1, x.shape[-1])
    pooled = embeddings if tower.patch_tokens and tower.blocks is None else x
    pooled = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True) if tower.unit else pooled
    pooled = oracle.attention_pool(p["attention_pool"], pooled) if tower.pooling == "map" else pooled.mean(0)
    return x, pooled if tower.embed_dim is None else pooled @ p["projection"]["kernel"]


@pytest.mark.parametrize("name", TOWERS)
def test_it_is_the_image_tower_frame_by_frame(name: str) -> None:
    """And padding changes nothing: of padded videos, and of their first frames alone."""
    tower, (x, mask) = TOWERS[name], twin.padded()
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    theirs = {"params": params["params"]["frame"]}
    theirs["params"].setdefault("projection", {"kernel": np.zeros((16, 8), np.float32)})  # which "all" doesn't use
    flat = x.reshape(-1, *x.shape[2:])
    tokens, _ = oracle.apply(PICTURE, theirs, flat, method="tokens")
    embeddings = oracle.apply(PICTURE, theirs, flat).reshape(2, 6, -1).astype(np.float64)
    tokens = tokens.reshape(2, 6, *tokens.shape[1:]).astype(np.float64)
    got, real = oracle.apply(tower, params, x, mask, method="tokens")
    pooled = oracle.apply(tower, params, got, real, method="pool")
    alone = oracle.apply(tower, params, x[:, : twin.REAL])
    for row in range(2):
        want, embedding = expected(tower, p, tokens[row, : twin.REAL], embeddings[row, : twin.REAL])
        np.testing.assert_allclose(got[row][real[row]], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(pooled[row], embedding, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone[row], embedding, rtol=1e-5, atol=1e-5)
    assert tower.embedding_size == alone.shape[1]
    assert np.prod(tower.grid(x)) == got.shape[1]


@pytest.mark.parametrize("name", ["unit", "patches", "residual", "map"])
def test_frames_that_are_not_real_never_matter(name: str) -> None:
    """Not even where they are NaN, nor for the gradient."""
    tower, (x, mask) = TOWERS[name], twin.padded()
    x = np.asarray(x, np.float32) / 255
    mask[1, :] = False  # an example without any
    params = oracle.params_of(tower, x)
    broken = np.where(mask[:, :, None, None, None], x, np.nan)

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(tower.apply(params, x, mask)[0] ** 2)

    for one, other in zip(*(jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params, each)) for each in (broken, x)),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()
    assert np.isfinite(oracle.apply(tower, params, broken, mask)).all()


def test_the_order_of_frames_is_read_by_a_transformer_alone() -> None:
    x = twin.videos()
    moved = x[:, [3, 1, 0, 5, 4, 2]]
    for name in ("mean", "patches", "transformer"):
        tower: Any = TOWERS[name]
        params = oracle.params_of(tower, x)
        apart = np.abs(oracle.apply(tower, params, x, None) - oracle.apply(tower, params, moved, None)).max()
        if tower.blocks is None:
            assert apart < 1e-5, name
        else:
            assert apart > 1e-3, name


def test_dropout_follows_each_example_s_key_and_differs_by_frame() -> None:
    x = np.repeat(twin.videos(frames=1), 6, axis=1)
    picture = PICTURE.clone(blocks=replace(BLOCKS, dropout=0.4))
    for tower in (Frames(frame=picture), Frames(frame=PICTURE, frames=6, blocks=replace(TIME, dropout=0.4))):
        params = oracle.params_of(tower, x)
        if "position" in params["params"]:
            params["params"]["position"] = np.zeros_like(params["params"]["position"])
        keys = jax.random.split(jax.random.key(1), 2)
        both, _ = oracle.apply(tower, params, x, train=True, keys=keys, method="tokens")
        one, _ = oracle.apply(tower, params, x[1:], train=True, keys=keys[1:], method="tokens")
        np.testing.assert_allclose(one[0], both[1], atol=1e-5)
        assert np.abs(both[0, 0] - both[0, 1]).max() > 1e-2


B = 4
SMALL: Any = {"width": 8, "heads": 2, "depth": 1, "mlp_dim": STEM, "remat": None}
VIT = ViT(blocks=Blocks(**SMALL), patch=4, size=8, pooling="mean", embed_dim=6)
TEXT = TextTransformer(blocks=Blocks(**SMALL | {"mlp_dim": 16}), vocab=20, length=5, pooling="mean", embed_dim=6)
VIDEO: Any = Frames(frame=VIT, frames=3, blocks=Blocks(width=6, depth=1, heads=2), embed_dim=6)


def batch() -> dict[str, Any]:
    """Videos of one to three frames; some rows lack an input."""
    random = np.random.default_rng(0)
    words = np.arange(5) < random.integers(2, 6, (B, 1))
    return {
        "image": random.integers(0, 256, (B, 8, 8, 3), np.uint8),
        "image_valid": np.arange(B) != 1,
        "video": random.integers(0, 256, (B, 3, 8, 8, 3), np.uint8),
        "video_mask": np.arange(3) < np.array([[1], [3], [2], [3]]),
        "video_valid": np.arange(B) != 2,
        "text": np.where(words, random.integers(5, 20, (B, 5)), 0).astype(np.int32),
        "text_mask": words,
        "text_valid": np.ones(B, bool),
        "index": np.arange(B, dtype=np.uint32),
    }


def pretrainer(towers: Mapping[str, Any], microbatches: int = 1) -> Any:
    objectives = {name: Contrastive((name, "text")) for name in towers}
    return Pretrainer({**towers, "text": TEXT}, objectives, microbatches=microbatches)


def gradient(module: Any, params: Any) -> Any:
    run = lambda params: module.apply({"params": params}, batch())  # noqa: E731
    return jax.jit(jax.value_and_grad(run, has_aux=True))(params)


@pytest.fixture(scope="module")
def shared() -> tuple[Any, Any]:
    """Parameters of a pretrainer whose videos are read by the tower of pictures, and the gradient."""
    module: Any = pretrainer({"image": VIT, "video": VIDEO})
    shapes = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), batch())))["params"]
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: np.float32(0.4 * random.normal(size=leaf.shape)), shapes)
    return params, gradient(module, params)


def test_a_shared_tower_has_its_parameters_once_whichever_comes_first(shared: Any) -> None:
    params, _ = shared
    assert set(params["towers_image"]) == {"stem", "position", "transformer", "projection"}
    assert set(params["towers_video"]) == {"position", "transformer", "projection"}
    other = pretrainer({"video": VIDEO, "image": VIT})
    shapes = nn.unbox(jax.eval_shape(lambda: other.init(jax.random.key(0), batch())))["params"]
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, params)


def test_pictures_and_frames_are_each_encoded_once() -> None:
    """First matrices of MLPs: of the pictures, and of the frames; the text's are of another size."""
    module: Any = pretrainer({"image": VIT, "video": VIDEO})
    module.objectives["other"] = Contrastive(("video", "image"))
    assert stems(module, batch()) == 2


def test_a_shared_tower_gets_the_sum_of_both_gradients(shared: Any) -> None:
    """That of two towers apart, with equal parameters."""
    params, ((loss, metrics), gradients) = shared
    apart = pretrainer({"image": VIT, "video": VIDEO.clone(frame=VIT.clone())})
    own = {**params, "towers_video": {**params["towers_video"], "frame": params["towers_image"]}}
    (expected_loss, _), both = gradient(apart, own)
    assert loss == pytest.approx(float(expected_loss), rel=1e-6)
    assert jax.tree.leaves(both["towers_image"])[0].any()
    assert jax.tree.leaves(both["towers_video"]["frame"])[0].any()
    total = jax.tree.map(jnp.add, both["towers_image"], both["towers_video"].pop("frame"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, {**both, "towers_image": total})
    assert {"image/loss", "video/loss"} <= set(metrics)


def test_the_cut_and_frames_that_are_not_real_change_nothing(shared: Any) -> None:
    params, wanted = shared
    assert_same(gradient(pretrainer({"image": VIT, "video": VIDEO}, 2), params), wanted, 1e-5)
    given = batch()
    given["video"] = np.where(given["video_mask"][:, :, None, None, None], given["video"], 255 - given["video"])
    module: Any = pretrainer({"image": VIT, "video": VIDEO})
    embed = jax.jit(lambda given: module.apply({"params": params}, given, method="embed"))
    np.testing.assert_array_equal(embed(given)["video"], embed(batch())["video"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "cls"}, "pooling='cls' is not one of mean, map"),
        ({"pooling": "map"}, r"takes the mean of its frames, without pooling='map': .* set blocks"),
        ({"frames": 6, "residual": True}, "without frames, residual"),
        ({"blocks": TIME}, "frames=None: with blocks there are learned positions"),
        ({"blocks": TIME, "frames": 4}, "videos of 6 frames are longer than frames=4"),
        ({"blocks": BLOCKS, "frames": 6}, "blocks.width=16, and what the image tower gives of a frame is 8 wide"),
        ({"blocks": TIME, "frames": 6, "pooling": "map", "unit": True}, "leave it out with pooling='map'"),
        (
            {"frame": Convolutional(channels=(4,), groups=2, embed_dim=4), "patch_tokens": True},
            "frame is a Convolutional: leave it out, or take a ViT",
        ),
        ({"frame": PICTURE.clone(positions="sincos", size=4), "patch_tokens": True}, "have 7 tokens, and .* size 2"),
    ],
)
def test_what_does_not_fit_is_an_error(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        abstract(Frames(**{"frame": PICTURE} | fields), twin.videos())


def test_what_a_chain_gives_must_fit() -> None:
    tower: Any = TOWERS["transformer"]
    tower.check_input("towers.video", Incoming((4, 8, 12, 3), "uint8"))
    for shape, message in (
        ((8, 12, 3), r"towers.video reads videos \[F, H, W, 3\], and data.transforms gives uint8\[8, 12, 3\]"),
        ((7, 8, 12, 3), "videos of 7 frames, more than the 6 of towers.video.frames"),
        ((6, 8, 10, 3), "pictures of 8x10, towers.video.frame has size"),
    ):
        with pytest.raises(UserError, match=message):
            tower.check_input("towers.video", Incoming(shape, "uint8"))
    with pytest.raises(UserError, match="a Frames has no patches that could be masked"):
        tower.apply(oracle.params_of(tower, twin.videos()), twin.videos(), keep=np.zeros((2, 1), int), method="tokens")
