"""The smallest towers and decoder that keep the contracts: a linear stem, one mixing of all tokens, a mean."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

STEM = 13  # no other axis in the tests has this size: the stem's products can be counted in the jaxpr
WIDTH, EMBED, VOCAB = 8, 6, 50
SIZES = {"image": 12, "audio": 10, "text": 8}  # patches, patches, tokens
PATCH = 5


class ToyTower(nn.Module):
    """Pictures and sounds come as ready patches `[B,N,P]`, texts as ids `[B,L]`."""

    modality: str

    def setup(self) -> None:
        if self.modality == "text":
            self.words = nn.Embed(VOCAB, PATCH)
        self.stem, self.lift, self.mix = nn.Dense(STEM), nn.Dense(WIDTH), nn.Dense(WIDTH)
        self.positions = self.param("positions", nn.initializers.normal(1.0), (SIZES[self.modality], STEM))
        self.head = nn.Dense(EMBED)

    def tokens(self, x: Any, mask: Any = None, keep: Any = None, train: bool = False, keys: Any = None) -> Any:
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        x = self.stem(self.words(x) if self.modality == "text" else x) + self.positions
        if keep is not None:
            mask = jnp.take_along_axis(mask, keep, axis=1) & (keep >= 0)
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        x = self.lift(nn.gelu(x))
        return x + nn.gelu(self.mix(self.pooled(x, mask)))[:, None], mask

    def pool(self, tokens: Any, token_mask: Any) -> Any:
        return self.head(self.pooled(tokens, token_mask))

    def patches(self, x: Any, mask: Any = None) -> Any:
        return x, jnp.ones(x.shape[:2], bool) if mask is None else mask

    def grid(self, x: Any) -> tuple[int, ...]:
        return (x.shape[1],)

    @property
    def prefix(self) -> int:
        return 0

    def __call__(self, x: Any, mask: Any = None, train: bool = False) -> Any:
        return self.pool(*self.tokens(x, mask, train=train))

    @staticmethod
    def pooled(x: Any, mask: Any) -> Any:
        return jnp.where(mask[..., None], x, 0).sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)


class ToyDecoder(nn.Module):
    """Every patch from its position and the mean of what was kept."""

    @nn.compact
    def __call__(self, tokens: Any, token_mask: Any, keep: Any, grid: Any, prefix: int, patch_mask: Any = None) -> Any:
        positions = self.param("positions", nn.initializers.normal(0.02), (grid[0], WIDTH))
        return nn.gelu(ToyTower.pooled(tokens, token_mask)[:, None] + positions)


def toy_batch(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Patches, captions of all lengths, and some examples that lack a modality."""
    random = np.random.default_rng(seed)
    batch: dict[str, np.ndarray] = {"index": np.arange(size, dtype=np.uint32)}
    for modality in ("image", "audio"):
        batch[modality] = random.normal(size=(size, SIZES[modality], PATCH)).astype(np.float32)
    batch["audio_mask"] = np.arange(SIZES["audio"]) < random.integers(3, SIZES["audio"] + 1, (size, 1))
    batch["text_mask"] = np.arange(SIZES["text"]) < random.integers(2, SIZES["text"] + 1, (size, 1))
    batch["text"] = np.where(batch["text_mask"], random.integers(5, VOCAB, (size, SIZES["text"])), 0).astype(np.int32)
    batch["text"][:, 0] = 1
    for row, modality in enumerate(SIZES, start=1):
        batch[f"{modality}_valid"] = np.arange(size) % size != row
    return batch


def assert_same(got: Any, expected: Any, tolerance: float = 1e-6) -> None:
    (loss, metrics), gradients = got
    (expected_loss, expected_metrics), expected_gradients = expected
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance)
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=tolerance, atol=tolerance, err_msg=name)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(expected_gradients)))
    for got, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * norm)


def stems(pretrainer: Any, batch: Any) -> int:
    """How many times a stem is applied, whatever jaxpr within the jaxpr it stands in."""

    def count(jaxpr: Any) -> int:
        total = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                total += equation.outvars[0].aval.shape[-1] == STEM
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    total += count(getattr(inner, "jaxpr", inner))
        return total

    variables = jax.eval_shape(pretrainer.init, jax.random.key(0), batch)
    variables = {**variables, "ema": variables["params"]}  # read where there is a teacher
    run = lambda variables: pretrainer.apply(nn.unbox(variables), batch, rngs={"mask": jax.random.key(5)})  # noqa: E731
    return count(jax.make_jaxpr(run)(variables).jaxpr)
