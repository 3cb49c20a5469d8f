"""Matching of two inputs with hard negatives (ALBEF: Li et al. 2021, arXiv:2107.07651, section 3.2)."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray

from mmjax.errors import UserError, not_among
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, RowPairs, View, selected, valid
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.head import linear_head
from mmjax.objectives.numerics import unit, weighted_mean

NEGATIVES = ("hard", "random")
NO_ROW = -1


class MatchedPairs(NamedTuple):
    """Pairs after the fusion has read them."""

    logits: Float[Array, "p 2"]
    """Of not belonging together, and of belonging together."""
    together: Bool[Array, " p"]
    valid: Bool[Array, " p"]


class Matching(nn.Module):
    """Tells by the fused tokens of a pair whether the two belong together: cross-entropy over the right pairs, and two
    wrong ones for each example, one with another text for its picture and one with another picture for its text.

    A hard negative is drawn with the softmax of the embeddings' similarities, over all rows of the global batch that
    aren't right: neither the example itself (its `id`, where the batch has that), nor one whose ids of tokens are the
    same. Where none is left there is no pair. Each view is encoded once; the fusion reads three pairs an example.
    The loss starts near ln 2, or at 0.637 for one that answers by the share of right pairs. Metrics, besides the loss:
    `accuracy`, `accuracy_right` and `accuracy_wrong` (of the pairs of either kind), and `pairs`, their number.

    Attributes:
        fusion: one of the experiment's fusions, that reads tokens.
        pair: the two inputs.
        negatives: `hard`, or `random`: each wrong row is as likely.
        temperature: by which similarities are divided before the softmax; smaller ones give harder negatives. 0.07 is
            what ALBEF's learned one starts at.
        within: number of examples, one after the other in the global batch, among which negatives are sought: a
            device's own batch in the papers (64 in ALBEF); None: all.
        towers: the tower of an input, by its name, where that isn't the tower of the same name.
        half_right: whether each example makes one pair instead of three: half of the batch, chosen at random, are right
            ones, and each example of the other half has a wrong one of the second input (ViLT: Kim et al. 2021,
            arXiv:2102.03334, with another picture: pair=("text", "image")). The loss starts near ln 2.
    """

    fusion: str
    pair: tuple[str, str] = ("image", "text")
    negatives: Literal["hard", "random"] = "hard"
    temperature: float = 0.07
    within: int | None = None
    towers: Mapping[str, str] = field(default_factory=dict)
    half_right: bool = False

    def views(self) -> tuple[View, ...]:
        return tuple(View(name, None, self.towers.get(name)) for name in self.pair)

    def kept(self) -> tuple[View, ...]:
        return self.views()

    def fusions(self) -> tuple[str, ...]:
        """The fusion that reads the pairs."""
        return (self.fusion,)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or embeddings that are compared are of two sizes."""
        if self.negatives not in NEGATIVES:
            raise UserError(not_among(f"{path}.negatives", self.negatives, NEGATIVES))
        if not self.temperature > 0:
            raise UserError(f"{path}.temperature={self.temperature} must be above 0: similarities are divided by it")
        if self.within is not None and self.within < 2:
            raise UserError(f"{path}.within={self.within} leaves no wrong partner: it is 2 or more, or None for all")
        sizes = {view.by: getattr(towers[view.by], "embedding_size", None) for view in self.views()}
        if self.negatives == "hard" and len(set(sizes.values())) > 1 and None not in sizes.values():
            each = " and ".join(f"towers.{tower} into {size}" for tower, size in sizes.items())
            raise UserError(
                f"{path} finds hard negatives by embeddings of one size, but {each}: set the same embed_dim, or "
                "negatives='random'"
            )

    def per_example(
        self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array], context: Context
    ) -> tuple[Float[Array, "b e"], ...]:
        """The unit vectors by which negatives are found; they get no gradient from here."""
        return tuple(unit(selected(valid(batch, view.input), encoded[view].embedding)) for view in self.views())

    def pairs(
        self, outputs: tuple[Float[Array, "b e"], ...], batch: Mapping[str, Array], key: PRNGKeyArray
    ) -> Int[Array, "p 2"]:
        """The right pairs; then each row of the first input with a wrong one of the second; then the other way. With
        `half_right` each row of the first input once, with its own or a wrong one of the second.
        """
        allowed = self.wrong(batch)
        rows = jnp.arange(len(allowed))
        logits = jnp.zeros(allowed.shape)
        if self.negatives == "hard":
            a, b = outputs
            logits = jnp.einsum("ie,je->ij", a, b, preferred_element_type=a.dtype) / self.temperature
        keys = jax.random.split(key)
        of_a, of_b = (
            drawn_columns(k, x, there)
            for k, x, there in zip(keys, (logits, logits.T), (allowed, allowed.T), strict=True)
        )
        if self.half_right:
            right = jax.random.permutation(jax.random.fold_in(key, len(keys)), rows) < len(rows) / 2
            return jnp.stack([rows, jnp.where(right, rows, of_a)], axis=1)
        firsts = jnp.concatenate([rows, rows, of_b])
        return jnp.stack([firsts, jnp.concatenate([rows, of_a, rows])], axis=1)

    def wrong(self, batch: Mapping[str, Array]) -> Bool[Array, "b b"]:
        """A mask of the rows of the second input that are wrong partners of each row of the first: both are there, and
        neither the example nor its tokens are the same."""
        first, second = (valid(batch, name) for name in self.pair)
        rows = jnp.arange(len(first))
        same = rows[:, None] == rows
        if "id" in batch:
            number = same_rows(batch["id"])
            same |= number[:, None] == number
        for name in self.pair:
            if batch[name].dtype == jnp.int32 and batch[name].ndim == 2:
                mask = batch.get(f"{name}_mask")
                number = same_rows(batch[name] if mask is None else jnp.where(mask, batch[name], -1))
                same |= number[:, None] == number
        near = True if self.within is None else rows[:, None] // self.within == rows // self.within
        return first[:, None] & second & ~same & near

    def per_pair(self, tokens: Mapping[View, TokensAndMask], pair: RowPairs, context: Context) -> MatchedPairs:
        return MatchedPairs(self.matched(tokens, context), pair.rows[:, 0] == pair.rows[:, 1], pair.valid)

    def predict(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Float[Array, "b 2"]:
        """The logits of each example's two inputs: of not belonging together, and of belonging together."""
        tokens = {
            view: (tokens, mask & valid(batch, view.input)[:, None])
            for view in self.views()
            for tokens, mask in (encoded[view].read(context.reads_front(self.fusion, view.input)),)
        }
        return self.matched(tokens, context)

    def matched(self, tokens: Mapping[View, TokensAndMask], context: Context) -> Float[Array, "p 2"]:
        """The logits of pairs, by the fused tokens of each."""
        return self.read_pairs(tokens, context)[1]

    @nn.compact
    def read_pairs(
        self, tokens: Mapping[View, TokensAndMask], context: Context
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "p 2"]]:
        """The fused tokens of pairs, by input, and the logits."""
        fused, embedding = context.fuse(self.fusion, {view.input: tokens[view] for view in self.views()})
        return fused, linear_head(embedding, 2, "match", "joint")

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        _, (logits, together, counts) = outputs
        one = jnp.ones_like(counts, jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, together.astype(jnp.int32))
        hits = ((logits[:, 1] > logits[:, 0]) == together).astype(jnp.float32)
        metrics = {
            "accuracy": weighted_mean(hits, one, counts),
            "accuracy_right": weighted_mean(hits, one, counts & together),
            "accuracy_wrong": weighted_mean(hits, one, counts & ~together),
            "pairs": counts.sum(),
        }
        return weighted_mean(losses, one, counts), metrics


def drawn_columns(key: PRNGKeyArray, logits: Float[Array, "b b"], allowed: Bool[Array, "b b"]) -> Int[Array, " b"]:
    """One of the allowed columns for each row, drawn with the softmax of its logits over these; -1: there is none."""
    found = jax.random.categorical(key, jnp.where(allowed, logits, -jnp.inf), axis=1)
    return jnp.where(allowed.any(axis=1), found, NO_ROW)


def same_rows(x: Integer[Array, "b l"]) -> Int[Array, " b"]:
    """A number for each row, the same in rows that are equal: exact, by sorting them."""
    x = jnp.asarray(x)
    order = jnp.lexsort(tuple(x.T))
    ordered = x[order]
    new = jnp.any(ordered[1:] != ordered[:-1], axis=1)
    numbers = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new.astype(jnp.int32))])
    return jnp.zeros(len(x), jnp.int32).at[order].set(numbers)
