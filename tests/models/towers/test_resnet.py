from math import prod
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.resnet import Bottleneck, ResNet, ResNetTrunk
from mmjax.models.towers.text import TextTransformer
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.step import compile_train_step, make_train_step
from tests.models import oracle
from tests.states import abstract_state

SMALL: dict[str, Any] = {"layers": (2, 1, 3, 1), "width": 4, "heads": 2, "size": (64, 96), "embed_dim": 6}
TEXT = TextTransformer(vocab=9, length=3, blocks=Blocks(width=8, depth=1, heads=2), embed_dim=6)
RN: dict[str, Any] = {
    "RN50": ((3, 4, 6, 3), 64, 224, 1024, 38_316_896),
    "RN101": ((3, 4, 23, 3), 64, 224, 512, 56_259_936),
    "RN50x4": ((4, 6, 10, 6), 80, 288, 640, 87_137_080),
    "RN50x16": ((6, 8, 18, 8), 96, 384, 768, 167_328_912),
    "RN50x64": ((3, 15, 36, 10), 128, 448, 1024, 420_380_352),
}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)


def abstract(module, pictures):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), pictures))


@pytest.fixture(scope="module")
def variables(pictures):
    """Random ones: no scale is zero, and every variance is positive."""
    found = oracle.params_of(ResNet(**SMALL), pictures)
    norms = found["batch_stats"]
    found["batch_stats"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.float32(0.5 + np.abs(leaf)) if path[-1].key == "var" else leaf, norms
    )
    return found


class Reference:
    """The network once more, in numpy, by loops over the pixels of the kernel; in float64, or as `dtype` rounds it."""

    def __init__(self, variables, train=False, dtype: Any = np.float64):
        self.params, self.stats = (
            jax.tree.map(lambda leaf: leaf.astype(dtype), oracle.as64(variables[name])["trunk"])
            for name in ("params", "batch_stats")
        )
        self.pool = oracle.as64(variables["params"])["attention_pool"]
        self.train, self.seen = train, {}

    def norm(self, path, x):
        p, s = (self.at(tree, path) for tree in (self.params, self.stats))
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if self.train else (s["mean"], s["var"])
        self.seen[path] = mean, var
        return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]

    def convolve(self, path, x, stride=1):
        kernel = self.at(self.params, path)["kernel"]
        size = len(kernel)
        rows, columns = x.shape[1] // stride, x.shape[2] // stride
        x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        return sum(
            x[:, dy : dy + rows * stride : stride, dx : dx + columns * stride : stride] @ kernel[dy, dx]
            for dy in range(size)
            for dx in range(size)
        )

    @staticmethod
    def at(tree, path):
        stage, layer, name = path
        if stage is None:
            return tree[name]
        if layer == 0:
            return tree[f"stage{stage}_first"][name]
        return jax.tree.map(lambda leaf: leaf[layer - 1], tree[f"stage{stage}_rest"][name])

    @staticmethod
    def halved(x):
        return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4

    def tokens(self, x, layers):
        for i in range(3):
            x = self.convolve((None, 0, f"stem{i}"), x, 2 if i == 0 else 1)
            x = np.maximum(self.norm((None, 0, f"norm{i}"), x), 0)
        x = self.halved(x)
        for stage, depth in enumerate(layers):
            for layer in range(depth):
                y = np.maximum(self.norm((stage, layer, "norm_in"), self.convolve((stage, layer, "in"), x)), 0)
                y = np.maximum(self.norm((stage, layer, "norm_middle"), self.convolve((stage, layer, "middle"), y)), 0)
                if layer == 0 and stage > 0:
                    x, y = self.halved(x), self.halved(y)
                y = self.norm((stage, layer, "norm_out"), self.convolve((stage, layer, "out"), y))
                if layer == 0:
                    x = self.norm((stage, layer, "norm_shortcut"), self.convolve((stage, layer, "shortcut"), x))
                x = np.maximum(x + y, 0)
        return x.reshape(len(x), -1, x.shape[-1])

    def embedding(self, tokens):
        """Of one picture."""
        x = np.concatenate([tokens.mean(0, keepdims=True), tokens]) + self.pool["position"]
        query = oracle.heads_in(self.pool["query"], x[:1], 0)
        key, value = (oracle.heads_in(self.pool["key_value"], x, part) for part in range(2))
        weights = oracle.softmax(np.einsum("hnk,hmk->hnm", query, key) / np.sqrt(query.shape[-1]))
        joined = np.einsum("hnm,hmk->nhk", weights, value).reshape(-1)
        return oracle.dense(self.pool["out"], joined)


def close(got, want, rtol=1e-5, rounding=0.0):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=max(rtol * np.abs(want).max(), rounding))


@pytest.mark.parametrize("train", [False, True])
def test_it_equals_float64_numpy(pictures, variables, train):
    mean, std = (0.48, 0.45, 0.41), (0.27, 0.26, 0.28)
    tower = ResNet(**SMALL, mean=mean, std=std)
    reference = Reference(variables, train)
    pixels = (np.asarray(pictures, np.float64) / 255 - mean) / std
    want = reference.tokens(pixels, SMALL["layers"])
    # A variance over twelve values that hardly differ makes much of little: how much, depends on the order of sums, and
    # so on the processor. What float32 itself loses in that is told by the same loops in it.
    rounded = Reference(variables, train, np.float32).tokens(pixels.astype(np.float32), SMALL["layers"])
    rounding = np.abs(rounded - want).max()
    assert rounded.dtype == np.float32
    assert rounding < 1e-4 * np.abs(want).max()
    (tokens, real), updates = oracle.apply(
        tower, variables, pictures, method="tokens", train=train, mutable=("batch_stats",)
    )
    assert tokens.shape == (2, 6, 128)
    assert real.shape == (2, 6)
    assert real.all()
    close(tokens, want, rounding=rounding)
    embedding = oracle.apply(tower, variables, tokens, real, method="pool")
    close(embedding, np.stack([reference.embedding(row) for row in np.asarray(tokens, np.float64)]))
    moved = Reference({**variables, **updates}).stats
    for path, (mean, var) in reference.seen.items():
        old, new = (Reference.at(stats, path) for stats in (reference.stats, moved))
        close(new["mean"], 0.9 * old["mean"] + 0.1 * mean if train else old["mean"])
        close(new["var"], 0.9 * old["var"] + 0.1 * var if train else old["var"])


def test_pooling_reads_the_tokens_that_are_real(pictures, variables):
    tower = ResNet(**SMALL)
    tokens, _ = oracle.apply(tower, variables, pictures, method="tokens")
    real = np.array([[True] * 4 + [False] * 2, [True] * 6])
    a, b = (
        oracle.apply(tower, variables, np.where(real[..., None], tokens, np.float32(other)), real, method="pool")
        for other in (tokens, 9.0)
    )
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a[0] - oracle.apply(tower, variables, pictures)[0]).max() > 1e-3


def test_remat_changes_nothing(pictures):
    def gradient(remat: Literal["full"] | None):
        trunk = ResNetTrunk((2,), 4, remat, "float32")

        def loss(params):
            tokens, _ = trunk.apply({**parts, "params": params}, pixels, True, mutable=["batch_stats"])
            return (tokens**2).sum()

        return jax.jit(jax.grad(loss))(parts["params"])

    pixels = np.asarray(pictures, np.float32) / 255
    parts = oracle.params_of(ResNetTrunk((2,), 4, None, "float32"), pixels)
    plain, again = gradient(None), gradient("full")
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), again, plain)


@pytest.mark.parametrize("name", RN)
def test_published_parameters(name):
    layers, width, size, embed_dim, parameters = RN[name]
    tower = ResNet(layers=layers, width=width, size=size, embed_dim=embed_dim)
    found = abstract(tower, jnp.zeros((1, size, size, 3), jnp.uint8))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(found["params"])) == parameters


def test_initial_values_and_logical_axes(pictures):
    tower = ResNet(**{**SMALL, "width": 16})
    specs = nn.get_partition_spec(abstract(tower, pictures))["params"]
    assert specs["trunk"]["stage2_rest"]["middle"]["kernel"] == PartitionSpec("layers", None, None, None, "embed")
    assert specs["attention_pool"]["key_value"]["kernel"] == PartitionSpec("embed", "heads", None, "head_dim")
    assert specs["attention_pool"]["out"]["kernel"] == PartitionSpec("embed", "joint")
    init = jax.jit(lambda: meta.unbox(Bottleneck(64).init(jax.random.key(0), jnp.zeros((1, 2, 2, 256)))))
    params = init()["params"]
    middle = params["middle"]["kernel"]  # [3, 3, 64, 64]
    assert np.abs(middle).max() == pytest.approx((9 * 64) ** -0.5, rel=0.01)
    assert np.std(middle) == pytest.approx((3 * 9 * 64) ** -0.5, rel=0.01)
    assert not params["norm_out"]["scale"].any()
    assert params["norm_middle"]["scale"].all()


def test_bfloat16_tower_gives_a_float32_embedding_from_float32_variables(pictures, variables):
    tower = ResNet(**SMALL, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(tower, pictures))} == {jnp.dtype("float32")}
    tokens, _ = jax.eval_shape(lambda v: tower.apply(v, pictures, method="tokens"), variables)
    assert tokens.dtype == jnp.bfloat16
    embedding, state = jax.eval_shape(
        lambda v: tower.apply(v, pictures, train=True, mutable=["batch_stats"]), variables
    )
    assert embedding.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


def batch_of(pictures):
    return {
        "image": np.asarray(pictures),
        "text": np.arange(6, dtype=np.int32).reshape(2, 3),
        "text_mask": np.ones((2, 3), bool),
        "image_valid": np.ones(2, bool),
        "text_valid": np.ones(2, bool),
        "index": np.arange(2, dtype=np.uint32),
    }


def drawn(state):
    """A state of random parameters, without compiling what would create it; all else is 1."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype(leaf.dtype), state.params)
    rest = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), state)
    return jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), rest.replace(params=params), state)


def step_of(image, batch, *, microbatches=1, frozen=()):
    pretrainer = Pretrainer(
        {"image": image, "text": TEXT}, {"pair": Contrastive(("image", "text"))}, microbatches=microbatches
    )
    optimizer, mesh = AdamW(1e-3, frozen=frozen), Mesh().build(jax.devices()[:1])
    state = abstract_state(pretrainer, optimizer, batch, mesh=mesh)
    return make_train_step(pretrainer, optimizer, seed=0, total_steps=9), state, mesh


def test_statistics_move_in_a_train_step(pictures):
    batch = batch_of(pictures)
    step, abstract, mesh = step_of(ResNet(**{**SMALL, "layers": (1, 1, 1, 1)}), batch, frozen=("^towers_text/",))
    state = drawn(abstract)
    before = jax.tree.map(np.array, (state.params, state.model_state))
    with jax.set_mesh(mesh):
        state, metrics = compile_train_step(step, abstract, mesh)(state, put(batch, mesh))
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), (state.params, state.model_state), before)
    assert moved[1].keys() == {"batch_stats"}
    assert all(jax.tree.leaves(moved[1]))
    assert all(jax.tree.leaves(moved[0]["towers_image"]["trunk"]))
    assert np.isfinite(metrics["loss"])


def test_the_statistics_of_a_part_of_the_batch_are_refused_where_they_would_move(pictures):
    batch = batch_of(pictures)
    tower = ResNet(**{**SMALL, "layers": (1, 1, 1, 1)})
    step, state, _ = step_of(tower, batch, microbatches=2)
    with pytest.raises(UserError, match="microbatches=2, but towers_image have batch statistics"):
        jax.eval_shape(step, state, batch)
    step, state, _ = step_of(tower, batch, microbatches=2, frozen=("^towers_image/",))
    after, _ = jax.eval_shape(step, state, batch)
    assert jax.tree.structure(after.model_state) == jax.tree.structure(state.model_state)


def test_a_pretrainer_embeds_by_the_running_statistics(pictures):
    """They are read only: nothing is told to be mutable."""
    batch = batch_of(pictures)
    pretrainer = Pretrainer({"image": ResNet(**SMALL), "text": TEXT}, {"pair": Contrastive(("image", "text"))})
    rngs = {"params": jax.random.key(0)}
    variables = jax.eval_shape(lambda: pretrainer.init(rngs, batch, train=False))
    vectors = jax.eval_shape(lambda v: pretrainer.apply(v, batch, method="embed"), variables)
    assert {name: vector.shape for name, vector in vectors.items()} == {"image": (2, 6), "text": (2, 6)}


@pytest.mark.parametrize(
    ("fields", "side", "message"),
    [
        ({}, (64, 90), "pictures of 64x90 pixels: a ResNet takes multiples of 32"),
        ({}, (64, 64), r"64x64 pixels have \(2, 2\) tokens, but positions are for \(2, 3\)"),
        ({"layers": (1, 2, 3)}, (64, 96), r"layers=\(1, 2, 3\): it is four numbers"),
        ({"width": 5}, (64, 96), "width=5 is odd"),
        ({"remat": "dots"}, (64, 96), "remat='dots' is not one of full"),
        ({"heads": 3}, (64, 96), "heads=3 does not divide width=128"),
    ],
)
def test_errors_say_what_would_do(fields, side, message):
    with pytest.raises(UserError, match=message):
        abstract(ResNet(**{**SMALL, **fields}), jnp.zeros((1, *side, 3), jnp.uint8))


def test_its_tokens_cannot_be_masked(pictures, variables):
    with pytest.raises(UserError, match="a ResNet has no patches"):
        oracle.apply(ResNet(**SMALL), variables, pictures, keep=jnp.zeros((2, 1), jnp.int32), method="tokens")
