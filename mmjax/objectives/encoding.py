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
from mmjax.models.fusion.contract import reads_embeddings, reads_front
from mmjax.objectives.contract import AnyView, Fused, Together, View, parts, valid
from mmjax.objectives.encoded import (
    Encoded,
    EncodedCorrupted,
    EncodedCorruptedPatches,
    EncodedFused,
    EncodedKept,
    EncodedRegions,
    EncodedTogether,
)
from mmjax.objectives.masking import Corrupt, CorruptPatches
from mmjax.objectives.masking_regions import CorruptRegions

HIDDEN_IN_PLACE = (EncodedCorrupted, EncodedCorruptedPatches)
EMA = "ema"  # the collection that holds the moving average of `params`
Batch = Mapping[str, Array]


class Keys(NamedTuple):
    """The step's keys for masking (and objectives' draws) and for dropout; None: there is none."""

    mask: PRNGKeyArray | None
    dropout: PRNGKeyArray | None


class Seen(NamedTuple):
    """A view before encoding: the tower's input `x`, what else it is told, and the targets that `Encoded` repeats."""

    x: Array
    keep: Array | None = None
    kind: type[Encoded] = Encoded
    fields: Mapping[str, Any] = {}
    told: Mapping[str, Array] = {}

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
        """Encodes every view. teach: `teach(view, part, encoded)` encodes a teacher's view, given those before it."""
        encoded: dict[AnyView, Any] = {}
        for view in views:
            if isinstance(view, Together):
                encoded[view] = self.together(view, part)
            else:
                encoded[view] = teach(view, part, encoded) if view.teacher else self.one(view, part, encoded)
        return encoded

    def one(self, view: View | Fused, part: Batch, encoded: Mapping[AnyView, Any]) -> Encoded | EncodedFused:
        """Encodes a view by its tower, or by its fusion; encoded: the views before it, a fusion's parts among them."""
        if isinstance(view, View):
            return self.view(view, part)
        return self.fused(view, [encoded.get(single) or self.front(single, part) for single in view.parts], part)

    def view(self, view: View, part: Batch) -> Encoded:
        """Encodes one view by its tower."""
        tower, mask = self.towers[view.by], part.get(f"{view.input}_mask")
        seen = self._seen(view, part)
        train = f"towers_{view.by}" in self.training and not view.teacher
        each = self._dropout_keys(view, part, train)
        told = {**types_told(tower, view.input, part), **seen.told}
        if has_front(tower):
            front = tower.front(seen.x, mask, seen.keep, **told)
            apart = told_fused(tower)
            more: dict[str, Any] = {"front": tower.front(seen.x, mask, seen.keep, **told, **apart) if apart else front}
            tokens, token_mask = tower.through_trunk(*front, train, each)
        else:
            more = {}
            tokens, token_mask = tower.tokens(seen.x, mask, seen.keep, train=train, keys=each, **told)
        embedding = tower.pool(tokens, token_mask)
        more |= tied_table(tower, seen)
        if seen.kind in HIDDEN_IN_PLACE and getattr(tower, "norm_pooled", False):
            more["normed"] = tower.normed(tokens)
        return seen.encoded(tokens, token_mask, embedding, tower.prefix, **more)

    def front(self, view: View, part: Batch) -> Encoded:
        """Makes what a view's tower gives its trunk, for a fusion through it, where nothing reads the view alone."""
        tower = self.towers[view.by]
        seen = self._seen(view, part)
        told = {**types_told(tower, view.input, part), **seen.told, **told_fused(tower)}
        tokens, mask = tower.front(seen.x, part.get(f"{view.input}_mask"), seen.keep, **told)
        nothing = jnp.zeros((len(tokens), 0))
        return seen.encoded(tokens, mask, nothing, tower.prefix, front=(tokens, mask), **tied_table(tower, seen))

    def together(self, view: Together, part: Batch) -> EncodedTogether:
        """Encodes the parts' tokens as one sequence through their trunk; tokens of missing inputs are masked."""
        towers = [self.towers[single.by] for single in view.parts]
        fronts, seens, here = [], [], []
        for single, tower in zip(view.parts, towers, strict=True):
            there = valid(part, single.input)[:, None]
            seen = self._seen(single, part, there)
            told = {**types_told(tower, single.input, part), **seen.told}
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
            tokens, mask = one.read(reads_front(fusion, single.input))
            given[single.input] = (one.embedding[:, None], there) if by_embedding else (tokens, mask & there)
        train = f"fusions_{view.fusion}" in self.training and not view.teacher
        tokens, embedding = fusion(given, train=train, keys=self._dropout_keys(view, part, train))
        shapes, found = ({name: tuple(mask.shape) for name, (_, mask) in by.items()} for by in (given, tokens))
        if shapes != found:
            raise UserError(
                f"fusions.{view.fusion} was given tokens {shapes}, and gave {found}: it gives as many of each input"
            )
        if by_embedding:  # which leaves the tokens as the towers gave them
            return EncodedFused(embedding, tuple(encoded))
        again = (one.replace(tokens=tokens[name][0], token_mask=tokens[name][1],
                             **({"normed": None} if isinstance(one, HIDDEN_IN_PLACE) else {}))
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
            others = [valid(part, name) for name in view.masking.paired]
            paired = jnp.stack(others).all(axis=0) if others else None
            x, chosen = view.masking.draw(*draw, patches, patch_mask, paired)
            return Seen(x, None, EncodedCorrupted, {"ids": patches, "chosen": chosen})
        if isinstance(view.masking, CorruptRegions):
            features, chosen = view.masking.draw(*draw, patches, patch_mask)
            fields = {"features": patches, "real": patch_mask, "chosen": chosen}
            return Seen(tower.with_patches(x, features), None, EncodedRegions, fields)
        grid = tuple(tower.grid(x))
        if isinstance(view.masking, CorruptPatches):
            hidden = view.masking.draw(*draw, patch_mask, grid)
            return Seen(x, None, EncodedCorruptedPatches, {"hidden": hidden}, {"hidden": hidden})
        keep = view.masking.draw(*draw, patch_mask, grid)
        fields = {"patches": patches, "patch_mask": patch_mask, "keep": keep, "grid": grid}
        return Seen(x, keep, EncodedKept, fields)

    def _dropout_keys(self, view: AnyView, part: Batch, train: bool) -> Key[Array, " b"] | None:
        """Each example's key for dropout."""
        if not train or self.keys.dropout is None:
            return None
        return jax.vmap(partial(jax.random.fold_in, view.dropout_key(self.keys.dropout)))(part["index"])


def has_front(tower: Any) -> bool:
    """True if a tower holds a trunk that a fusion may go through too."""
    trunk = getattr(tower, "trunk", None)
    return bool(getattr(trunk, "ways", ())) or getattr(trunk, "cross", False)


def told_fused(tower: Any) -> dict[str, bool]:
    """A further argument of a tower's `front` for a fusion, where that isn't read as the tower alone is."""
    return {"fused": True} if getattr(tower, "fused_first", None) is not None else {}


def tied_table(tower: Any, seen: Seen) -> dict[str, Array]:
    """The table of a text's tokens for a head that is tied to it, where words are hidden and the tower has one."""
    return {"table": tower.table()} if seen.kind is EncodedCorrupted and hasattr(tower, "table") else {}


def by_teacher(module: nn.Module, view: View | Fused, part: Batch, encode: Any) -> Encoded | EncodedFused:
    """Calls `encode(module, view, part)` with the moving average in the place of the parameters, and no gradient to it.

    Raises UserError where there is none.
    """
    if module.is_initializing():  # the average starts as the parameters initialised now
        return jax.lax.stop_gradient(encode(module, view, part))
    if EMA not in module.variables:
        inputs = " and ".join(repr(one.input) for one in parts(view))
        raise UserError(
            f"the view of {inputs} is a teacher's, and there is no moving average of the parameters: set the "
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
