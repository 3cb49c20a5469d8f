"""Encodes views, each distinct one once: by its tower, by a trunk with others, or by a fusion encoder."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from mmjax.errors import UserError
from mmjax.models.fusion.contract import reads_embeddings
from mmjax.objectives.contract import AnyView, Fused, Together, View, valid
from mmjax.objectives.encoded import Encoded, EncodedCorrupted, EncodedFused, EncodedKept, EncodedTogether
from mmjax.objectives.masking import Corrupt

EMA = "ema"  # the collection that holds the moving average of `params`
Batch = Mapping[str, Array]


class Keys(NamedTuple):
    """The step's keys for masking (and objectives' draws) and for dropout; None: there is none."""

    mask: PRNGKeyArray | None
    dropout: PRNGKeyArray | None


class Seen(NamedTuple):
    """A view before encoding: the tower's input `x`, and the targets that `Encoded` repeats."""

    x: Array
    keep: Array | None = None
    kind: type[Encoded] = Encoded
    fields: Mapping[str, Any] = {}

    def encoded(self, tokens: Array, token_mask: Array, embedding: Array, prefix: int, **more: Any) -> Any:
        """The encoded view, with the tower's output."""
        return self.kind(
            tokens=tokens, token_mask=token_mask, embedding=embedding, prefix=prefix, **self.fields, **more
        )


@dataclass(frozen=True)
class Encoding:
    """Encodes the views of a part of the batch.

    towers, fusions: bound modules by name. keys: the step's. training: the parts that train, by their parameters' names
    (`towers_image`): they drop out.
    """

    towers: Mapping[str, Any]
    fusions: Mapping[str, Any]
    keys: Keys
    training: frozenset[str]

    def views(self, views: tuple[AnyView, ...], part: Batch, teach: Any) -> dict[AnyView, Any]:
        """Encodes every view. teach: `teach(view, part)` encodes a teacher's view."""
        encoded: dict[AnyView, Any] = {}
        for view in views:
            if isinstance(view, Together):
                encoded[view] = self.together(view, part)
            elif isinstance(view, Fused):
                encoded[view] = self.fused(view, [encoded[single] for single in view.parts], part)
            else:
                encoded[view] = teach(view, part) if view.teacher else self.view(view, part)
        return encoded

    def view(self, view: View, part: Batch) -> Encoded:
        """Encodes one view by its tower."""
        tower, mask = self.towers[view.by], part.get(f"{view.input}_mask")
        seen = self._seen(view, part)
        train = f"towers_{view.by}" in self.training and not view.teacher
        each = self._dropout_keys(view, part, train)
        told = types_told(tower, view.input, part)
        tokens, token_mask = tower.tokens(seen.x, mask, seen.keep, train=train, keys=each, **told)
        embedding = tower.pool(tokens, token_mask)
        more = {"table": tower.table()} if seen.kind is EncodedCorrupted and hasattr(tower, "table") else {}
        return seen.encoded(tokens, token_mask, embedding, tower.prefix, **more)

    def together(self, view: Together, part: Batch) -> EncodedTogether:
        """Encodes the parts' tokens as one sequence through their trunk; tokens of missing inputs are masked."""
        towers = [self.towers[single.by] for single in view.parts]
        fronts, seens, here = [], [], []
        for single, tower in zip(view.parts, towers, strict=True):
            there = valid(part, single.input)[:, None]
            seen = self._seen(single, part, there)
            told = types_told(tower, single.input, part)
            tokens, real = tower.front(seen.x, part.get(f"{single.input}_mask"), seen.keep, **told)
            fronts.append((tokens, real & there))
            seens.append(seen)
            here.append(tokens.shape[1])
        tokens, real = (jnp.concatenate(some, axis=1) for some in zip(*fronts, strict=True))
        train = any(f"towers_{single.by}" in self.training for single in view.parts)
        tokens, real = towers[0].trunk(tokens, real, train, self._dropout_keys(view, part, train))
        prefix = tokens.shape[1] - sum(here)
        ends = list(itertools.accumulate(here, initial=prefix))
        encoded = tuple(
            seen.encoded(tokens[:, begin:end], real[:, begin:end], jnp.zeros((len(tokens), 0)), prefix=0)
            for (begin, end), seen in zip(itertools.pairwise(ends), seens, strict=True)
        )
        return EncodedTogether(tokens, real, towers[0].pool(tokens, real), encoded, prefix)

    def fused(self, view: Fused, encoded: list[Encoded], part: Batch) -> EncodedFused:
        """Applies the fusion encoder to the parts' tokens, which are encoded already, or to their embeddings."""
        fusion = self.fusions[view.fusion]
        by_embedding, given = reads_embeddings(fusion), {}
        for single, one in zip(view.parts, encoded, strict=True):
            there = valid(part, single.input)[:, None]
            given[single.input] = (
                (one.embedding[:, None], there) if by_embedding else (one.tokens, one.token_mask & there)
            )
        train = f"fusions_{view.fusion}" in self.training
        tokens, embedding = fusion(given, train=train, keys=self._dropout_keys(view, part, train))
        shapes, found = ({name: tuple(mask.shape) for name, (_, mask) in by.items()} for by in (given, tokens))
        if shapes != found:
            raise UserError(
                f"fusions.{view.fusion} was given tokens {shapes}, and gave {found}: it gives as many of each input"
            )
        if by_embedding:  # which leaves the tokens as the towers gave them
            return EncodedFused(embedding, tuple(encoded))
        again = (one.replace(tokens=tokens[name][0], token_mask=tokens[name][1])
                 for name, one in zip(given, encoded, strict=True))  # fmt: skip
        return EncodedFused(embedding, tuple(again))

    def _seen(self, view: View, part: Batch, there: Bool[Array, "b 1"] | None = None) -> Seen:
        """The input of a view's tower; `there`: a mask of the examples that have the view's input, where
        that matters.
        """
        tower, x, mask = self.towers[view.by], part[view.input], part.get(f"{view.input}_mask")
        if view.masking is None:
            return Seen(x)
        assert self.keys.mask is not None
        patches, patch_mask = tower.patches(x, mask)
        patch_mask = patch_mask if there is None else patch_mask & there
        draw = view.key(self.keys.mask), part["index"]
        if isinstance(view.masking, Corrupt):
            x, chosen = view.masking.draw(*draw, patches, patch_mask)
            return Seen(x, None, EncodedCorrupted, {"ids": patches, "chosen": chosen})
        grid = tuple(tower.grid(x))
        keep = view.masking.draw(*draw, patch_mask, grid)
        fields = {"patches": patches, "patch_mask": patch_mask, "keep": keep, "grid": grid}
        return Seen(x, keep, EncodedKept, fields)

    def _dropout_keys(self, view: AnyView, part: Batch, train: bool) -> Key[Array, " b"] | None:
        """Each example's key for dropout."""
        if not train or self.keys.dropout is None:
            return None
        return jax.vmap(partial(jax.random.fold_in, view.dropout_key(self.keys.dropout)))(part["index"])


def by_teacher(module: nn.Module, view: View, part: Batch, encode: Any) -> Encoded:
    """Calls `encode(module, view, part)` with the moving average in the place of the parameters, and no gradient to it.

    Raises UserError where there is none.
    """
    if module.is_initializing():  # the average starts as the parameters initialised now
        return jax.lax.stop_gradient(encode(module, view, part))
    if EMA not in module.variables:
        raise UserError(
            f"the view of {view.input!r} is a teacher's, and there is no moving average of the parameters: set the "
            "experiment's ema=0.999, say (or give apply() the collection 'ema')"
        )
    average = nn.map_variables(
        encode, ["params", EMA], trans_in_fn=lambda variables: {"params": jax.lax.stop_gradient(variables[EMA])}
    )
    return jax.lax.stop_gradient(average(module, view, part))


def types_told(tower: Any, input: str, batch: Batch) -> dict[str, Array]:
    """Further arguments of a tower, where the batch has them: the types of a text's tokens."""
    name = f"{input}_types"
    return {"types": batch[name]} if getattr(tower, "types", 0) and name in batch else {}


def embedding(tower: Any, input: str, batch: Batch) -> Float[Array, "b e"]:
    """A tower's embedding of an unmasked input."""
    return tower(batch[input], batch.get(f"{input}_mask"), train=False, **types_told(tower, input, batch))
