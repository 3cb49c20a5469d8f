"""The pretrainer: towers and objectives together, from a batch to a loss, in one exact scan over microbatches."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from mmjax.errors import UserError, nearest
from mmjax.objectives.contract import Encoded, EncodedTogether, Together, View, parts, present, valid
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.numerics import unit

Batch = Mapping[str, Array]
Weight = float | Callable[[Any], Any]


class Keys(NamedTuple):
    """The step's keys for what is masked and for what is dropped out; None where there is none."""

    mask: PRNGKeyArray | None
    dropout: PRNGKeyArray | None


class Seen(NamedTuple):
    """What a tower gets of a view, and then, as in `Encoded`, what of it a masked objective predicts."""

    x: Array
    patches: Array | None
    patch_mask: Array | None
    keep: Array | None
    chosen: Array | None
    grid: tuple[int, ...]

    def encoded(self, tokens: Array, token_mask: Array, embedding: Array, prefix: int) -> Encoded:
        """With what the tower made of it."""
        return Encoded(
            tokens,
            token_mask,
            embedding,
            patches=self.patches,
            patch_mask=self.patch_mask,
            keep=self.keep,
            chosen=self.chosen,
            grid=self.grid,
            prefix=prefix,
        )


class Pretrainer(nn.Module):
    """Towers and objectives together.

    `loss, metrics = pretrainer.apply(variables, batch, step, rngs={"mask": key})` is a pure function: all that is
    random follows from the key and from each example's `index`. The parameters stand under `towers_<modality>` and
    `objectives_<name>`.

    Microbatches save memory and change nothing else: the encoders run over one part of the batch after another and are
    run again in the backward pass, while each loss is computed once, on the outputs of all (so a contrastive loss still
    sees every pair). Loss and gradients are those of the whole batch: what is masked or dropped out of an example
    belongs to it and not to the cut.

    Attributes:
        towers: the encoder of each modality. A tower that no objective reads is an error: its parameters would be
            saved, decayed and reported, but never trained.
        objectives: see `mmjax.objectives.contract.Objective`.
        weights: each objective's weight in the loss, or a function of the step (an optax schedule); a missing name: 1.
        microbatches: how many parts the batch is cut into.
        idle: modalities whose towers only evaluation reads: they are frozen, and get parameters when these are made.
    """

    towers: Mapping[str, Any]
    objectives: Mapping[str, Any]
    weights: Mapping[str, Weight] = field(default_factory=dict)
    microbatches: int = 1
    idle: tuple[str, ...] = ()

    def __call__(
        self, batch: Batch, step: int | Int[Array, ""] = 0, train: bool = True, still: tuple[str, ...] = ()
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The weighted loss of a batch.

        Args:
            batch: of each modality that an objective reads `<modality>`, `<modality>_valid` and, where it has one,
                `<modality>_mask`; `text_types`, which of two texts a token is of, where its tower knows types; `index`,
                each row's number in the global batch, where a view is masked. What stands in rows that aren't valid
                changes nothing, be it NaN (but that batch statistics count their bytes, as `ResNet` says).
            step: for weights that are functions of it.
            train: whether the towers drop out.
            still: parts, by their parameters' names (`towers_image`), that don't train: those towers don't drop out.

        Returns:
            The loss, and flat metrics `"<objective>/<metric>"`, each objective's unweighted `loss` among them.

        Raises:
            UserError: an objective reads a modality that has no tower or isn't in the batch; a tower that nothing
                reads; a weight without objective; microbatches that don't divide the batch; no key for the masks.
        """
        views = self._views(batch)
        training = frozenset(name for name in self.towers if train and f"towers_{name}" not in still)
        keys = self._keys(views, bool(training))
        batch = {"index": jnp.arange(len(batch[parts(views[0])[0].modality])), **present(batch)}
        if self.microbatches == 1 or self.is_initializing():
            outputs = self._encode(views, batch, keys, training)
        else:
            scan = nn.scan(
                nn.remat(
                    lambda self, _, part, keys: (None, self._encode(views, part, keys, training)),
                    prevent_cse=False,  # the scan itself keeps the recomputation apart
                ),
                variable_broadcast=["params", "batch_stats"],  # the statistics of a tower that is frozen: it reads them
                split_rngs={"params": False},
                in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType] (flax says int, and means a tree)
            )
            _, outputs = scan(self, None, cut(batch, self.microbatches), keys)
            outputs = glue(outputs)
        if self.is_initializing():
            for modality in self.idle:
                self._embedding(modality, batch)
        loss, metrics = jnp.zeros(()), {}
        for name, objective in self.objectives.items():
            part, details = objective.batch_loss(outputs[name], batch)
            weight = self.weights.get(name, 1.0)
            loss += (weight(step) if callable(weight) else weight) * part
            metrics |= {f"{name}/{metric}": value for metric, value in {"loss": part, **details}.items()}
        return loss, metrics

    def embed(self, batch: Batch) -> dict[str, Float[Array, "b e"]]:
        """Unit vectors `[B,E]`, fp32 at least, of every modality that has a tower and is in the batch. Needs no keys.

        Raises:
            UserError: the batch holds nothing that a tower reads.
        """
        modalities = [modality for modality in self.towers if modality in batch]
        if not modalities:
            raise UserError(f"nothing to embed: the batch holds {_names(batch)}, and the towers read "
                            f"{_names(self.towers)}")  # fmt: skip
        return {modality: unit(self._embedding(modality, batch)) for modality in modalities}

    def _embedding(self, modality: str, batch: Batch) -> Float[Array, "b e"]:
        """What the modality's tower makes of its inputs as they are."""
        tower, mask = self.towers[modality], batch.get(f"{modality}_mask")
        return tower(batch[modality], mask, train=False, **_told(tower, modality, batch))

    def _encode(
        self, views: tuple[View | Together, ...], part: Batch, keys: Keys, training: frozenset[str]
    ) -> dict[str, Any]:
        """Encodes each distinct view once, then does what each objective can do example by example."""
        encoded: dict[Any, Any] = {}
        for view in views:
            train = any(single.modality in training for single in parts(view))
            if isinstance(view, Together):
                encoded[view] = self._encode_together(view, part, keys, train)
            else:
                encoded[view] = self._encode_view(view, part, keys, train)
        return {name: objective.per_example(encoded, part) for name, objective in self.objectives.items()}

    def _encode_view(self, view: View, part: Batch, keys: Keys, train: bool) -> Encoded:
        tower, mask = self.towers[view.modality], part.get(f"{view.modality}_mask")
        seen = self._seen(view, part, keys)
        each = self._dropout_keys(view, part, keys, train)
        told = _told(tower, view.modality, part)
        tokens, token_mask = tower.tokens(seen.x, mask, seen.keep, train=train, keys=each, **told)
        embedding = tower.pool(tokens, token_mask)
        table = tower.table() if hasattr(tower, "table") else None
        return seen.encoded(tokens, token_mask, embedding, tower.prefix)._replace(table=table)

    def _encode_together(self, view: Together, part: Batch, keys: Keys, train: bool) -> EncodedTogether:
        """The parts' tokens one after the other through their trunk, those of what an example lacks masked."""
        towers = [self.towers[single.modality] for single in view.parts]
        fronts, seens, here = [], [], []
        for single, tower in zip(view.parts, towers, strict=True):
            there = valid(part, single.modality)[:, None]
            seen = self._seen(single, part, keys, there)
            told = _told(tower, single.modality, part)
            tokens, real = tower.front(seen.x, part.get(f"{single.modality}_mask"), seen.keep, **told)
            fronts.append((tokens, real & there))
            seens.append(seen)
            here.append(tokens.shape[1])
        tokens, real = (jnp.concatenate(some, axis=1) for some in zip(*fronts, strict=True))
        tokens, real = towers[0].trunk(tokens, real, train, self._dropout_keys(view, part, keys, train))
        prefix = tokens.shape[1] - sum(here)
        ends = list(itertools.accumulate(here, initial=prefix))
        encoded = tuple(
            seen.encoded(tokens[:, begin:end], real[:, begin:end], jnp.zeros((len(tokens), 0)), prefix=0)
            for (begin, end), seen in zip(itertools.pairwise(ends), seens, strict=True)
        )
        return EncodedTogether(tokens, real, towers[0].pool(tokens, real), encoded, prefix)

    def _seen(self, view: View, part: Batch, keys: Keys, there: Bool[Array, "b 1"] | None = None) -> Seen:
        """What of a view its tower gets to see; `there`: which examples have its modality, where that matters."""
        tower, x, mask = self.towers[view.modality], part[view.modality], part.get(f"{view.modality}_mask")
        grid = tuple(tower.grid(x))
        if view.masking is None:
            return Seen(x, None, None, None, None, grid)
        assert keys.mask is not None
        patches, patch_mask = tower.patches(x, mask)
        patch_mask = patch_mask if there is None else patch_mask & there
        draw = view.key(keys.mask), part["index"]
        if isinstance(view.masking, Corrupt):
            x, chosen = view.masking.draw(*draw, patches, patch_mask)
            return Seen(x, patches, patch_mask, None, chosen, grid)
        return Seen(x, patches, patch_mask, view.masking.draw(*draw, patch_mask, grid), None, grid)

    def _dropout_keys(self, view: View | Together, part: Batch, keys: Keys, train: bool) -> Key[Array, " b"] | None:
        """Each example's key for dropout."""
        if not train or keys.dropout is None:
            return None
        return jax.vmap(partial(jax.random.fold_in, view.key(keys.dropout)))(part["index"])

    def _keys(self, views: tuple[View | Together, ...], train: bool) -> Keys:
        """The step's keys, drawn outside the scan: inside, they would depend on the cut."""
        dropout = self.make_rng("dropout") if train and self.has_rng("dropout") else None
        masked = {single.modality for view in views for single in parts(view) if single.masking is not None}
        if not masked:
            return Keys(None, dropout)
        if not self.has_rng("mask") and not self.is_initializing():
            raise UserError(
                f"the objectives mask {_names(masked)} at random and were given no key: pass rngs={{'mask': key}} "
                "(with train=False too; only embed() needs none)"
            )
        return Keys(self.make_rng("mask" if self.has_rng("mask") else "params"), dropout)

    def _views(self, batch: Batch) -> tuple[View | Together, ...]:
        """The distinct views that the objectives read, after checking that they can be had."""
        for name in self.weights:
            if name not in self.objectives:
                raise UserError(
                    f"weights has {name!r}, which is no objective; the objectives are {_names(self.objectives)}"
                    f"{nearest(name, self.objectives)}"
                )
        if not self.objectives:
            raise UserError("objectives={}: there is nothing to train; give an objective, Contrastive say")
        views: dict[View | Together, None] = {}
        for name, objective in self.objectives.items():
            for view in objective.views():
                for single in parts(view):
                    self._check_view(name, single, batch)
                views[view] = None
                if isinstance(view, Together):
                    self._check_trunks(name, view)
        unread = set(self.towers) - set(self.idle) - {single.modality for view in views for single in parts(view)}
        if unread:
            raise UserError(
                f"no objective reads {_names(unread)}: leave the tower out, or add an objective that trains it"
            )
        self._check_microbatches(len(batch[parts(next(iter(views)))[0].modality]))
        return tuple(views)

    def _check_view(self, objective: str, view: View, batch: Batch) -> None:
        if view.modality not in self.towers:
            raise UserError(
                f"objective {objective!r} reads {view.modality!r}, which has no tower; the towers are "
                f"{_names(self.towers)}{nearest(view.modality, self.towers)}"
            )
        for needed in (view.modality, f"{view.modality}_valid", *(["index"] if view.masking else [])):
            if needed not in batch:
                raise UserError(
                    f"objective {objective!r} needs {needed!r}, which the batch lacks; it holds {_names(batch)}"
                )
        if isinstance(view.masking, Corrupt) and view.modality != "text":
            raise UserError(
                f"objective {objective!r} corrupts {view.modality!r}; only tokens of text can be (use Keep)"
            )

    def _check_trunks(self, objective: str, view: Together) -> None:
        trunks = [getattr(self.towers[single.modality], "trunk", None) for single in view.parts]
        if trunks[0] is None or any(trunk is not trunks[0] for trunk in trunks):
            raise UserError(
                f"objective {objective!r} encodes {_names(single.modality for single in view.parts)} together, and "
                "their towers hold no trunk that is the same: give both towers one Trunk(...), trunk=trunk"
            )

    def _check_microbatches(self, size: int) -> None:
        if self.microbatches < 1 or size % self.microbatches:
            would_do = [str(n) for n in range(1, size + 1) if size % n == 0]
            raise UserError(
                f"microbatches={self.microbatches} doesn't divide a batch of {size}; {', '.join(would_do)} would do"
            )


def _told(tower: Any, modality: str, batch: Batch) -> dict[str, Array]:
    """What a tower takes besides its inputs and their mask, where the batch holds it: the types of a text's tokens."""
    name = f"{modality}_types"
    return {"types": batch[name]} if getattr(tower, "types", 0) and name in batch else {}


def cut(batch: Any, n: int) -> Any:
    """`[B, ...]` -> `[n, B/n, ...]`. Row i goes to part i % n, so that every part has rows from every device."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, 0), batch)


def glue(parts: Any) -> Any:
    """The inverse of `cut`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), parts)


def _names(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
