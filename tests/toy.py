"""A pretrainer of a dozen lines, for tests of what goes on around one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

FEATURES = 8


def dense(width: int, axes: tuple[str, str]) -> nn.Dense:
    return nn.Dense(
        width,
        kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
    )


class Tower(nn.Module):
    """An MLP, with a running mean of its inputs where asked for."""

    width: int = 16
    running_mean: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.astype(jnp.float32)
        if self.running_mean:
            mean = self.variable("batch_stats", "mean", jnp.zeros, (x.shape[-1],))
            if train:
                mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
        hidden = nn.gelu(dense(2 * self.width, ("patch", "mlp"))(x))
        return dense(self.width, ("mlp", "embed"))(hidden)


class ToyObjective(nn.Module):
    """Softmax contrast of two towers' outputs."""

    @nn.compact
    def __call__(self, a, b):
        log_scale = self.param("log_scale", nn.initializers.zeros, ())
        logits = jnp.exp(log_scale) * a @ b.T
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(a)), jnp.arange(len(a))])


class ToyPretrainer(nn.Module):
    """Two towers and one objective; drops a random feature of each example, keyed by step and example.

    `poison`: the step at which the loss becomes NaN.
    """

    width: int = 16
    running_mean: bool = False
    poison: int = -1
    microbatches: int = 1

    def setup(self):
        self.towers = {name: Tower(self.width, self.running_mean) for name in ("image", "text")}
        self.objectives = {"contrastive": ToyObjective()}

    def __call__(self, batch, step=0, train: bool = True, still=()):
        key = self.make_rng("mask")
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        dropped = jax.vmap(lambda key: jax.random.randint(key, (), 0, FEATURES))(keys)
        image = jnp.where(jnp.arange(FEATURES) == dropped[:, None], 0.0, batch["image"])
        loss = self.objectives["contrastive"](
            self.towers["image"](image, train and "towers_image" not in still),
            self.towers["text"](batch["text"], train and "towers_text" not in still),
        )
        loss = jnp.where(step == self.poison, jnp.nan, loss)
        return loss, {"contrastive/loss": loss}


def toy_batch(step: int, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        "image": rng.normal(size=(size, FEATURES)).astype(np.float32),
        "text": rng.integers(-3, 3, (size, FEATURES), dtype=np.int32),
        "index": np.arange(size, dtype=np.uint32),
    }
