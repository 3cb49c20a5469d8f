"""The pretrainer: towers and objectives together, from a batch to a loss, exact over microbatches."""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmjax.errors import UserError, unknown
from mmjax.models.layers.masks import TokensAndMask
from mmjax.objectives.contract import (
    AnyView,
    Context,
    Fused,
    Matches,
    Predicting,
    ReadBeside,
    View,
    Writing,
    parts,
    present,
    usable,
    valid,
)
from mmjax.objectives.encoded import EncodedFused
from mmjax.objectives.encoding import Encoding, Keys, by_teacher, embedding
from mmjax.objectives.microbatches import each_part
from mmjax.objectives.numerics import unit
from mmjax.objectives.readings import check_entries, check_parts, distinct_views, names, rows_of
from mmjax.objectives.second_round import by_front, kept_views, second_round
from mmjax.objectives.token_errors import TokenErrors

Batch = Mapping[str, Array]
Weight = float | Callable[[Any], Any]


class Pretrainer(nn.Module):
    """Towers and objectives together, as one module.

    `loss, metrics = pretrainer.apply(variables, batch, step, rngs={"mask": key})` is a pure function: all random
    numbers follow from the key and from each example's `index`. The parameters are under `towers_<name>`,
    `fusions_<name>` and `objectives_<name>`.

    Microbatches save memory and change nothing else: the encoders run over one part of the batch after another and are
    run again in the backward pass, while each loss is computed once, on the outputs of all (so a contrastive loss still
    sees every pair). Loss and gradients are those of the whole batch: masking and dropout of an example depend on the
    example, not on the cut. Objectives that choose partners from the whole batch look at them in a second round, in as
    many parts.

    Attributes:
        towers: the encoders by name, which is that of the modality that each encodes. A tower that no objective reads
            is an error: its parameters would be saved, decayed and reported, but never trained.
        objectives: see `mmjax.objectives.contract.Objective`.
        weights: each objective's weight in the loss, or a function of the step (an optax schedule); a missing name: 1.
        microbatches: the number of parts that the batch is cut into.
        idle: towers that only evaluation reads: they are frozen, but their parameters are initialised.
        fusions: fusion encoders by name, for objectives that ask for `Fused` views (`mmjax.models.fusion.contract`).
        balance: how the weighted losses become one (`mmjax.optim.balance`), in parameters and variables under
            `balance`; None: they are added.
    """

    towers: Mapping[str, Any]
    objectives: Mapping[str, Any]
    weights: Mapping[str, Weight] = field(default_factory=dict)
    microbatches: int = 1
    idle: tuple[str, ...] = ()
    fusions: Mapping[str, Any] = field(default_factory=dict)
    balance: Any = None

    def __call__(
        self, batch: Batch, step: int | Int[Array, ""] = 0, train: bool = True, still: tuple[str, ...] = ()
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The weighted loss of a batch.

        Args:
            batch: of each input that an objective reads `<input>`, `<input>_valid` and, where it has one,
                `<input>_mask`; `<input>_types`, which of two texts a token is of, where its tower knows types; `index`,
                each row's number in the global batch, where a view is masked. The content of invalid rows has no
                effect, even NaN (but that batch statistics count their bytes, as `ResNet` says).
            step: for weights, and what else of an objective, that are functions of it.
            train: whether towers, fusions and objectives apply dropout.
            still: parts, by their parameters' names (`towers_image`), that don't train: those apply no dropout.

        A teacher's view reads the collection `ema`, the moving average of `params`; the gradient doesn't reach it.

        Returns:
            The loss, and flat metrics `"<objective>/<metric>"`, each objective's unweighted `loss` among them.

        Raises:
            UserError: an objective reads an input without a tower or fusion, or one that isn't in the batch; a tower or
                fusion that nothing reads; a weight without objective; microbatches that don't divide the batch; no key
                for the masks; a teacher without a moving average.
        """
        check_parts(self.towers, self.fusions, self.objectives, self.weights, self.idle)
        views = distinct_views(self.objectives, self.fusions)
        check_entries(self.objectives, batch, self.microbatches)
        training = self._training(still) if train else frozenset()
        keys, kept = self._keys(views, training), kept_views(self.objectives, self.fusions)
        batch = {"index": jnp.arange(rows_of(batch)), **present(batch)}

        def first(self: Pretrainer, part: Batch, keys: Keys, step: Int[Array, ""]) -> Any:
            encoded, outputs = self._encoded(views, part, keys, training), {}
            for name, objective in self.objectives.items():
                told = self.context(name, "per_example", keys.mask, part["index"], training, step)
                outputs[name] = objective.per_example(encoded, part, told)
            return outputs, tuple(encoded[view].read(fronts) for view, fronts in kept)

        now = jnp.asarray(step)
        outputs, tokens = each_part(self, first, self.microbatches, batch, keys, now)
        again = second_round(self, outputs, tokens, batch, keys.mask, training, now)
        outputs = {name: (one, again[name]) if name in again else one for name, one in outputs.items()}
        if self.is_initializing():
            for modality in self.idle:
                embedding(self.towers[modality], modality, batch)
        metrics = {}
        for name, objective in self.objectives.items():
            part, details = objective.batch_loss(outputs[name], batch)
            metrics |= {f"{name}/{metric}": value for metric, value in {**details, "loss": part}.items()}
        losses = self.weighted(metrics, step)
        if self.balance is None:
            return sum(losses.values(), jnp.zeros(())), metrics
        loss, weights = self.balance(losses, step)
        return loss, metrics | {f"{name}/weight": weight for name, weight in weights.items()}

    def weighted(self, metrics: Mapping[str, Array], step: int | Int[Array, ""]) -> dict[str, Float[Array, ""]]:
        """Each objective's loss, as the metrics of a call have it, times its weight."""
        weights = {name: self.weights.get(name, 1.0) for name in self.objectives}
        return {
            name: (weight(step) if callable(weight) else weight) * metrics[f"{name}/loss"]
            for name, weight in weights.items()
        }

    def embed(self, batch: Batch) -> dict[str, Float[Array, "b e"]]:
        """Unit vectors `[B,E]`, fp32 at least, of every input in the batch that has a tower. Needs no keys.

        Raises:
            UserError: no tower reads any entry of the batch.
        """
        inputs = {name: tower for name, tower in self.inputs().items() if name in batch}
        if not inputs:
            raise UserError(f"nothing to embed: the batch holds {names(batch)}, and the towers read "
                            f"{names(self.inputs())}")  # fmt: skip
        return {name: unit(embedding(self.towers[tower], name, batch)) for name, tower in inputs.items()}

    def fused(self, batch: Batch, fusion: str) -> EncodedFused:
        """The output of a fusion over all inputs of the batch that have a tower, in the towers' order: its embedding,
        and each input's tokens; without dropout. Needs no keys, and no objective.

        Raises:
            UserError: there is no such fusion; the batch holds fewer than two such inputs.
        """
        if fusion not in self.fusions:
            raise UserError(unknown("there is no fusion", fusion, self.fusions, "fusions"))
        singles = tuple(View(name) for name in self.towers if name in batch)
        if len(singles) < 2:
            raise UserError(f"the fusion {fusion!r} reads two inputs or more, and the batch holds {names(batch)}")
        view, there = Fused(fusion, singles), present(batch)
        rows = {"index": jnp.arange(len(batch[singles[0].input])), **there}
        return self._encoded((*singles, view), rows, Keys(None, None), frozenset())[view]

    def predict(self, batch: Batch, objective: str) -> Float[Array, "b c"]:
        """The logits of an objective that predicts (`mmjax.objectives.contract.Predicting`), for each example of the
        batch, without dropout. Needs no keys, and no label.

        Raises:
            UserError: there is no such objective, or it predicts nothing; the batch lacks what it reads.
        """
        predicting = self._able(objective, Predicting, "predicts nothing")
        encoded, batch = self._read(predicting, batch)
        return predicting.predict(encoded, batch, self.context(objective, "predict", None, batch["index"], frozenset()))

    def kept_tokens(self, batch: Batch, objective: str) -> tuple[TokensAndMask, ...]:
        """The tokens of each view that an objective of two rounds keeps, `[B,N,D]`, and which are real (none where an
        example lacks the input): what `matched` reads, of any rows.

        Raises UserError as `predict` does.
        """
        matching = self._able(objective, Matches, "matches nothing")
        encoded, batch = self._read(matching, batch)
        read = [encoded[view].read(by_front(matching, view, self.fusions)) for view in matching.kept()]
        return tuple(
            (tokens, mask & valid(batch, view.input)[:, None])
            for view, (tokens, mask) in zip(matching.kept(), read, strict=True)
        )

    def matched(self, tokens: tuple[TokensAndMask, ...], objective: str) -> Float[Array, "p 2"]:
        """The logits of pairs, not belonging together and belonging together, from tokens of `kept_tokens`."""
        matching = self._able(objective, Matches, "matches nothing")
        rows = jnp.arange(len(tokens[0][0]))
        told = self.context(objective, "predict", None, rows, frozenset())
        return matching.matched(dict(zip(matching.kept(), tokens, strict=True)), told)

    def word_errors(self, batch: Batch, objective: str) -> TokenErrors:
        """The sums over each text's words of an objective that predicts them (`Caption`), without dropout: zeros where
        an example doesn't count. Needs no keys.

        Raises UserError as `predict` does.
        """
        writing = self._able(objective, Writing, "predicts no words")
        encoded, batch = self._read(writing, batch)
        told = self.context(objective, "predict", None, batch["index"], frozenset())
        errors, rows = writing.per_example(encoded, batch, told), usable(writing, batch)
        return jax.tree.map(lambda x: jnp.where(rows, x, 0), errors)

    def views_to_write(self, batch: Batch, objective: str) -> dict[str, TokensAndMask]:
        """The tokens that the decoder of an objective reads beside its text, by the input's name: none are real of an
        input that an example lacks. The batch may lack the text. Needs no keys.

        Raises UserError as `predict` does.
        """
        writing = self._able(objective, Writing, "writes nothing")
        return dict(writing.read(*self._read(ReadBeside(writing), batch)))

    def _able(self, objective: str, kind: Any, lacking: str) -> Any:
        """The objective of that name, of a kind that answers."""
        if objective not in self.objectives:
            raise UserError(unknown("there is no objective", objective, self.objectives, "objectives"))
        found = self.objectives[objective]
        if not isinstance(found, kind):
            able = [name for name, one in self.objectives.items() if isinstance(one, kind)]
            raise UserError(
                f"the objective {objective!r} is a {type(found).__name__}, which {lacking}; those that do are "
                f"{names(able)}"
            )
        return found

    def _read(self, objective: Any, batch: Batch) -> tuple[dict[AnyView, Any], Batch]:
        """The views of one objective, encoded without dropout, and the batch without what could be a NaN."""
        views = distinct_views({"asked": objective}, self.fusions)
        check_entries({"asked": objective}, batch, 1)
        there = present(batch)
        batch = {"index": jnp.arange(rows_of(batch)), **there}
        return self._encoded(views, batch, Keys(None, None), frozenset()), batch

    def inputs(self) -> dict[str, str]:
        """The inputs that can be embedded, by name, and the tower of each: its own, or the one that a view names."""
        views = [view for whole in distinct_views(self.objectives) for view in parts(whole)]
        through = {view.input: view.by for view in reversed(views) if view.input not in self.towers}
        return {name: name for name in self.towers} | through

    def context(
        self,
        objective: str,
        round: str,
        key: PRNGKeyArray | None,
        rows: Int[Array, "b *v"],
        training: frozenset[str],
        step: int | Int[Array, ""] = 0,
    ) -> Context:
        """The context of an objective in one of its rounds, for the rows of one part."""
        fusions = {name: (module, f"fusions_{name}" in training) for name, module in self.fusions.items()}
        return Context(f"objectives_{objective}" in training, key, f"{round} {objective}", rows, fusions, step)

    def _training(self, still: tuple[str, ...]) -> frozenset[str]:
        """The parts that train, by their parameters' names."""
        groups = {"towers": self.towers, "fusions": self.fusions, "objectives": self.objectives}
        return frozenset(f"{group}_{name}" for group, by in groups.items() for name in by) - frozenset(still)

    def _encoded(
        self, views: tuple[AnyView, ...], part: Batch, keys: Keys, training: frozenset[str]
    ) -> dict[AnyView, Any]:
        """Encodes each distinct view once."""

        def teach(view: View | Fused, part: Batch, encoded: Mapping[AnyView, Any]) -> Any:
            def encode(self: Pretrainer, view: View | Fused, part: Batch) -> Any:
                return Encoding(self.towers, self.fusions, keys, training).one(view, part, encoded)

            return by_teacher(self, view, part, encode)

        return Encoding(self.towers, self.fusions, keys, training).views(views, part, teach)

    def _keys(self, views: tuple[AnyView, ...], training: frozenset[str]) -> Keys:
        """The step's keys, drawn outside the scan: inside, they would depend on the cut."""
        dropout = self.make_rng("dropout") if training and self.has_rng("dropout") else None
        if self.has_rng("mask") or self.is_initializing():
            return Keys(self.make_rng("mask" if self.has_rng("mask") else "params"), dropout)
        if masked := {single.input for view in views for single in parts(view) if single.masking is not None}:
            raise UserError(
                f"the objectives mask {names(masked)} at random and were given no key: pass rngs={{'mask': key}} "
                "(with train=False too; only embed() needs none)"
            )
        return Keys(None, dropout)
