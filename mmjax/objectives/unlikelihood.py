"""The unlikelihood of words that a text has already (Welleck et al. 2019, arXiv:1908.04319)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LEAST = 1e-5  # what 1 - p is at least, as in the authors' code: its logarithm stays finite


def repeated_word_losses(
    logits: Float[Array, "b l v"],
    targets: Int[Array, "b l"],
    real: Bool[Array, "b l"],
    segments: Int[Array, "b l"] | None = None,
) -> Float[Array, "b l"]:
    """For each word `-sum_c log(1 - p(c))` over the different words c that stand before it, but for itself: the
    token-level loss with the previous context as candidates (equations 3 and 4).

    logits: of each target. real: which targets are words: the others are no candidates. The id that begins a text is no
    target, and so none either. segments: of packed texts, which one each target is of; candidates are of its own.
    """
    same = targets[:, :, None] == targets[:, None]
    before = jnp.tril(jnp.ones(same.shape[1:], bool), k=-1)
    beside = real[:, None] & before
    if segments is not None:
        beside &= segments[:, :, None] == segments[:, None]
    again = jnp.any(same & beside, axis=2)  # a word is a candidate once, where it stands first
    candidates = beside & ~same & ~again[:, None]
    logs = jnp.take_along_axis(logits, jnp.broadcast_to(targets[:, None], same.shape), axis=2)
    chances = jnp.exp(logs - jax.nn.logsumexp(logits, axis=-1, keepdims=True))
    return -jnp.sum(jnp.where(candidates, jnp.log1p(-jnp.minimum(chances, 1 - LEAST)), 0), axis=2)
