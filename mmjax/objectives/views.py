"""Views: what of a modality is encoded (all of it, or a random part), and what an objective is handed of it.

Every mask belongs to one example. It is drawn from `fold_in(key, index)`, with `index` the example's row in the global
batch, so it depends neither on the other rows nor on how the batch is cut into microbatches, devices or hosts.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from mmjax.errors import UserError

EMPTY = -1  # a slot of `keep` that holds no patch


@dataclass(frozen=True)
class Keep:
    """Keep a random part of each example's patches and drop the rest before the encoder (MAE, arXiv:2111.06377; FLIP).

    Attributes:
        share: the part that stays, in (0, 1]; `ceil(share * valid patches)` patches of each example.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"Keep(share={self.share}): the share of patches that stay must be above 0 and at most 1")

    def count(self, patches: int) -> int:
        """How many of `patches` patches stay."""
        return math.ceil(self.share * patches - 1e-9)  # 0.1 * 30 is 3.0000000000000004: that must give 3, not 4

    def draw(
        self, key: PRNGKeyArray, index: Int[Array, " b"], patch_mask: Bool[Array, "b n"]
    ) -> Int[Array, "b {self.count(n)}"]:
        """The patches that stay, drawn for each example alone.

        Returns:
            Ids i32 `[B, count(N)]`, unique and ascending in each row (a causal tower may read them in order); the
            slots beyond `count(valid patches)` hold -1 and come last.
        """
        slots = self.count(patch_mask.shape[-1])
        counts = _table(self.count, patch_mask.shape[-1])

        def draw(index: Int[Array, ""], valid: Bool[Array, " n"]) -> Int[Array, " k"]:
            noise = jax.random.uniform(jax.random.fold_in(key, index), valid.shape, jnp.float32)
            ids = jnp.argsort(jnp.where(valid, noise, jnp.inf))[:slots]
            ids = jnp.sort(jnp.where(jnp.arange(slots) < counts[valid.sum()], ids, len(valid)))
            return jnp.where(ids < len(valid), ids, EMPTY).astype(jnp.int32)

        return jax.vmap(draw)(index, patch_mask)


@dataclass(frozen=True, kw_only=True)
class Corrupt:
    """Hide a random part of each caption's tokens from the encoder (BERT, arXiv:1810.04805).

    Of the n tokens that may be chosen (in the mask, id >= first_id) `round(rate * n)` are, and at least one where there
    is any: an exact count with a floor of one, as in BERT's released code. Each chosen token then, independently,
    becomes the mask token, a random token, or stays.

    Attributes:
        vocab: number of ids; random tokens are drawn uniformly from [first_id, vocab).
        rate: the part of the tokens that is chosen.
        mask_id: the mask token's id.
        first_id: ids below it are special (padding, begin, end, mask, ...): never chosen, never drawn.
        masked: the part of the chosen that becomes the mask token.
        random: the part of the chosen that becomes a random token.
    """

    vocab: int
    rate: float = 0.15
    mask_id: int = 4
    first_id: int = 5
    masked: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise UserError(f"Corrupt(rate={self.rate}): the part of tokens chosen must be above 0 and at most 1")
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1 + 1e-9:
            raise UserError(
                f"Corrupt(masked={self.masked}, random={self.random}): both must be at least 0, and at most 1 together"
            )
        if not 0 <= self.mask_id < self.vocab or not 0 <= self.first_id < self.vocab:
            raise UserError(
                f"Corrupt(vocab={self.vocab}, mask_id={self.mask_id}, first_id={self.first_id}): mask_id and first_id "
                f"must be ids of the vocabulary, 0 to {self.vocab - 1}"
            )

    def count(self, tokens: int) -> int:
        """How many of `tokens` tokens that may be chosen are."""
        return min(tokens, max(1, round(self.rate * tokens)))

    def draw(
        self, key: PRNGKeyArray, index: Int[Array, " b"], ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The ids as the encoder sees them, and which positions were chosen; drawn for each example alone."""
        counts = _table(self.count, ids.shape[-1])

        def draw(
            index: Int[Array, ""], ids: Int[Array, " l"], mask: Bool[Array, " l"]
        ) -> tuple[Int[Array, " l"], Bool[Array, " l"]]:
            which, what, word = jax.random.split(jax.random.fold_in(key, index), 3)
            maskable = mask & (ids >= self.first_id)
            noise = jnp.where(maskable, jax.random.uniform(which, ids.shape, jnp.float32), jnp.inf)
            chosen = maskable & (jnp.argsort(jnp.argsort(noise)) < counts[maskable.sum()])
            action = jax.random.uniform(what, ids.shape, jnp.float32)
            words = jax.random.randint(word, ids.shape, self.first_id, self.vocab, ids.dtype)
            seen = jnp.where(action < self.masked, self.mask_id, ids)
            seen = jnp.where((action >= self.masked) & (action < self.masked + self.random), words, seen)
            return jnp.where(chosen, seen, ids).astype(ids.dtype), chosen

        return jax.vmap(draw)(index, ids, mask)


@dataclass(frozen=True)
class View:
    """What of a modality is to be encoded. Equal views are encoded once, whoever asks for them."""

    modality: str
    masking: Keep | Corrupt | None = None

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """This view's own key of the step's: two views of one modality are masked independently."""
        return jax.random.fold_in(key, zlib.crc32(repr(self).encode()))


@dataclass(frozen=True)
class Together:
    """Several modalities in one sequence, for towers that hold the same `mmjax.models.trunk.Trunk` (M3AE,
    arXiv:2205.14204). An example that lacks one of them is encoded without it."""

    parts: tuple[View, ...]

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """This view's own key of the step's."""
        return jax.random.fold_in(key, zlib.crc32(repr(self).encode()))


def parts(view: View | Together) -> tuple[View, ...]:
    """The views of one modality that a view is made of."""
    return view.parts if isinstance(view, Together) else (view,)


class Encoded(NamedTuple):
    """A view, encoded. `patches` and `patch_mask` are what a masked objective predicts (None for an unmasked view)."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of the patches that were encoded."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the tower makes of the tokens; not normalised."""
    patches: Shaped[Array, "b n ..."] | None
    """All patches as they were before masking: pixels or log-mel values `[B,N,P]`, or token ids `[B,L]`."""
    patch_mask: Bool[Array, "b n"] | None
    keep: Int[Array, "b k"] | None
    """For a `Keep` view the ids of the patches that were encoded, -1 in empty slots."""
    chosen: Bool[Array, "b l"] | None
    """For a `Corrupt` view the positions to be predicted."""
    grid: tuple[int, ...]
    """How the N patches lie, e.g. (rows, columns)."""
    prefix: int
    """How many tokens stand before the patches' (CLS)."""


class EncodedTogether(NamedTuple):
    """Several modalities, encoded in one sequence."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of each part, one part after the other."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the first part's tower makes of the tokens; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are its own of the sequence, no prefix. Patches of what an example lacks aren't real."""
    prefix: int


class Objective(Protocol):
    """What a Linen module must have to be an objective. `per_example` runs inside the scan over microbatches."""

    def views(self) -> tuple[View | Together, ...]:
        """What must be encoded."""
        ...

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array]) -> Any:
        """All that can be done example by example (heads, decoders): a pytree of `[B, ...]`."""
        ...

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss and metrics from all examples' outputs; runs once, on the global batch."""
        ...


def valid(batch: Mapping[str, Array], modality: str) -> Bool[Array, " b"]:
    """Which examples have the modality: `batch["<modality>_valid"]`."""
    return entry(batch, f"{modality}_valid")


def entry(batch: Mapping[str, Array], name: str) -> Array:
    """`batch[name]`, or an error that says what the batch holds."""
    if name not in batch:
        raise UserError(f"the batch has no {name!r}; it holds {', '.join(sorted(batch))}")
    return batch[name]


def at_least_fp32(x: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in fp32, or in fp64 where it is: what losses and normalisations are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def weighted_mean(total: Float[Array, " b"], count: Shaped[Array, " b"], weight: Bool[Array, " b"]) -> Float[Array, ""]:
    """Sum of `total` over sum of `count`, both over the rows with weight; 0 where there is nothing to count.

    Rows without weight are selected away, not multiplied by 0: whatever they hold (NaN too) changes nothing.
    """
    total, count = (jnp.sum(jnp.where(weight, x, 0)) for x in (total, count))
    return total / jnp.maximum(count, 1)


def _table(count: Callable[[int], int], length: int) -> Int[Array, " n+1"]:
    """`count` of 0 to `length`: looked up, for on the device fp32 gets ceil and round wrong."""
    return jnp.asarray(np.array([count(n) for n in range(length + 1)], np.int32))
