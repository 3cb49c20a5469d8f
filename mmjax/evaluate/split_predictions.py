"""Asks an objective what it predicts for every example of a split."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mmjax.data.evaluation import evaluation_batches, evaluation_count, whole_column
from mmjax.data.pipeline import Prepared
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError, unknown
from mmjax.evaluate.disturbances import Disturbed, disturbed_rows
from mmjax.evaluate.other_towers import OtherTowers, other_towers
from mmjax.evaluate.split_dialogues import AnsweredTurn, SplitDialogues, answer_words, conversation_or_none
from mmjax.evaluate.split_maps import Looked, SplitMaps
from mmjax.evaluate.split_words import Spelled, SplitWords
from mmjax.evaluate.split_writing import WrittenSplit
from mmjax.evaluate.writing.beams import Beams
from mmjax.objectives.contract import parts
from mmjax.objectives.labels.classify import Classify
from mmjax.objectives.labels.regress import Regress
from mmjax.objectives.labels.span import Span
from mmjax.objectives.labels.tag_tokens import TagTokens
from mmjax.objectives.matching import Matching
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import hosts
from mmjax.runtime.mesh import ACTIVATION_RULES, put, replicated

Variables = dict[str, Any]
LABELS = (Classify, Regress, Span, TagTokens)  # the objectives that predict a label


class Predicted(NamedTuple):
    """The predictions of an objective for the examples of a split that have a label and one of its inputs."""

    logits: Float[np.ndarray, "n *l c"]
    """Of each example, or of each token of a text; or the numbers of each example."""
    label: Shaped[np.ndarray, "n *c"]
    """As the batch has it: class numbers, or targets of all classes; of tokens class numbers, -1 where none counts;
    of a span its two places, -1 where nobody knows them."""
    names: tuple[str, ...]
    """Of the classes; () where the label's chain has none."""
    loss: str
    """The objective's: `softmax`, one class is right, or `sigmoid`; `regression`, the logits are numbers;
    `span`, they are of being an answer's first token and its last."""
    rows: Int[np.ndarray, " n"]
    """The examples' places in the split."""


class SplitPredictor:
    """Computes the logits of an objective of labels on a split, in padded batches over the mesh; nothing
    is augmented.

    Of several hosts each reads its part of every batch, and all get the whole: all must make the same calls.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._pretrainer, self._data, self._mesh, self._batch_size = pretrainer, data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)
        self.word_maps = SplitMaps(pretrainer, data, mesh, batch_size)
        self.words = SplitWords(pretrainer, data, mesh, batch_size)
        self.writing = SplitDialogues(pretrainer, data, mesh, batch_size)

        def predict(variables: Variables, batch: Any, objective: str, kept: tuple[str, ...]) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                logits = pretrainer.apply(variables, batch, objective, method="predict")
            return logits, {name: batch[name] for name in kept}

        def tokens(variables: Variables, batch: Any, objective: str) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                return pretrainer.apply(variables, batch, objective, method="kept_tokens"), batch["index"]

        def matched(variables: Variables, batch: Any, objective: str) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                logits = pretrainer.apply(variables, batch["tokens"], objective, method="matched")
            return jax.nn.softmax(jax.numpy.asarray(logits, jax.numpy.float32))[:, 1], batch["index"]

        def embed(variables: Variables, batch: Any) -> tuple[Any, Any]:
            read = {name: array for name, array in batch.items() if name != "index"}
            with nn.logical_axis_rules(ACTIVATION_RULES):
                return pretrainer.apply(variables, read, method="embed"), batch["index"]

        shared: Any = {"out_shardings": replicated(mesh)}
        self._embed = jax.jit(embed, **shared)
        self._predict = jax.jit(predict, static_argnames=("objective", "kept"), **shared)
        self._kept = jax.jit(tokens, static_argnames="objective", **shared)
        self._matched = jax.jit(matched, static_argnames="objective", **shared)

    def inputs(self, objective: str) -> tuple[str, ...]:
        """The inputs that an objective reads.

        Raises:
            UserError: there is no such objective, or it predicts no label.
        """
        objectives = self._pretrainer.objectives
        able = [name for name, one in objectives.items() if isinstance(one, LABELS)]
        if objective not in able:
            raise UserError(unknown("there is no label to predict by", objective, able, "objectives of a label"))
        return tuple(dict.fromkeys(one.input for view in objectives[objective].views() for one in parts(view)))

    def matches(self, objective: str) -> tuple[str, ...]:
        """The two inputs that a `Matching` objective compares.

        Raises:
            UserError: there is no such objective, or the data lacks one of them.
        """
        able = [name for name, one in self._pretrainer.objectives.items() if isinstance(one, Matching)]
        if objective not in able:
            raise UserError(unknown("there is nothing to match by", objective, able, "Matching objectives"))
        read = tuple(view.input for view in self._pretrainer.objectives[objective].kept())
        for name in read:
            if name not in self._data.chains.specs:
                raise UserError(
                    f"objective {objective!r} matches {' and '.join(read)}, and the data has "
                    f"{', '.join(self._data.chains.specs)}: nothing can be put in order by it here"
                )
        return read

    def tokens(
        self, variables: Variables, split: str, objective: str
    ) -> tuple[tuple[str, ...], tuple[tuple[np.ndarray, np.ndarray], ...]]:
        """The inputs that a `Matching` objective compares, and of each the tokens of every row of the split, and which
        of them are real.

        Raises UserError as `matches` does.
        """
        views = self.matches(objective)
        found = []
        for batch, _ in evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part):
            tokens, index = jax.device_get(self._kept(variables, put(batch, self._mesh), objective))
            order = np.argsort(index)
            found.append([tuple(np.asarray(x)[order] for x in each) for each in tokens])
        count = evaluation_count(self._data, split)
        whole = [
            tuple(np.concatenate([batch[place][part] for batch in found])[:count] for part in range(2))
            for place in range(len(views))
        ]
        return views, tuple((tokens, mask) for tokens, mask in whole)

    def matched(
        self,
        variables: Variables,
        tokens: tuple[tuple[np.ndarray, np.ndarray], ...],
        rows: tuple[Int[np.ndarray, " p"], ...],
        objective: str,
    ) -> Float[np.ndarray, " p"]:
        """The probability that the pairs of these rows of `tokens` belong together, by batches: the tokens of no more
        pairs are gathered at a time.
        """
        count, size = len(rows[0]), self._batch_size
        index, hosts_in_all = self._part
        mine = slice(index * size // hosts_in_all, (index + 1) * size // hosts_in_all)
        found = []
        for start in range(0, count, size):
            places = np.minimum(np.arange(start, start + size), count - 1)[mine]  # the last ones are padding
            met = ((x[own[places]], mask[own[places]]) for (x, mask), own in zip(tokens, rows, strict=True))
            batch: Any = {"tokens": tuple(met)}
            batch["index"] = np.arange(size, dtype=np.uint32)[mine]
            shares, order = jax.device_get(self._matched(variables, put(batch, self._mesh), objective))
            found.append(shares[np.argsort(order)])
        return np.concatenate(found)[:count] if found else np.zeros(0, np.float32)

    def on(self, variables: Variables, split: str) -> "Foresight":
        """The predictor with these variables, of one split."""
        return Foresight(self, variables, split, {})

    def towers_of(self, source: str, split: str, image: str) -> OtherTowers:
        """The towers of another model, on the split's pictures."""
        return other_towers(source, split, image, self._data, self._batch_size)

    def column(self, split: str, name: str) -> list[Any]:
        """A column of every row of a split. Raises UserError where no source has it."""
        return whole_column(self._data, split, name)

    @property
    def kinds(self) -> dict[str, type[Input]]:
        """The kind of each entry of the data."""
        return {name: spec.kind for name, spec in self._data.chains.specs.items()}

    def vectors(self, variables: Variables, split: str, disturb: Disturbed) -> Float[np.ndarray, "n e"]:
        """The embeddings of an input of every row of a split, as it is when disturbed; unit vectors."""
        name, found = disturb[0], []
        for batch, _ in evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part):
            batch = disturbed_rows(batch, disturb, self._data.chains)
            read = {entry: batch[entry] for entry in batch if entry == "index" or entry.startswith(name)}
            vectors, index = jax.device_get(self._embed(variables, put(read, self._mesh)))
            found.append(vectors[name][np.argsort(index)])
        return np.concatenate(found)[: evaluation_count(self._data, split)]

    def __call__(
        self,
        variables: Variables,
        split: str,
        objective: str,
        without: Collection[str] = (),
        labelled: bool = True,
        disturb: Disturbed | None = None,
    ) -> Predicted:
        """The predictions on a split. without: inputs that are taken for missing in every example. labelled: whether
        examples without the label are left out. disturb: an input that is disturbed in every example, and by how much.

        Raises:
            UserError: there is no such objective or input.
            SplitNotFoundError: no source has the split.
        """
        read = self.inputs(objective)
        for name in without:
            if name not in read:
                raise UserError(
                    unknown(f"objective {objective!r} is asked without", name, read, "inputs that it reads")
                )
        part = self._pretrainer.objectives[objective]
        label, owner = _entries(part)
        kept = ("index", label, *(f"{name}_valid" for name in dict.fromkeys((owner, *read))))
        found, entries = [], []
        for batch, _ in evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part):
            batch = batch if disturb is None else disturbed_rows(batch, disturb, self._data.chains)
            batch = batch | {f"{name}_valid": np.zeros_like(batch[f"{name}_valid"]) for name in without}
            logits, told = jax.device_get(self._predict(variables, put(batch, self._mesh), objective, kept))
            order = np.argsort(told["index"])  # a mesh may have the hosts' rows in another order
            found.append(logits[order])
            entries.append({name: array[order] for name, array in told.items()})
        count = evaluation_count(self._data, split)  # the last batch is padded
        logits = np.concatenate(found)[:count].astype(np.float32)
        told = {name: np.concatenate([each[name] for each in entries])[:count] for name in kept}
        there: Bool[np.ndarray, " n"] = np.any([told[f"{name}_valid"] for name in read], axis=0)
        there = there & told[f"{owner}_valid"] if labelled else there
        named = (getattr(step, "classes", ()) for step in self._data.chains.transforms[owner])
        names = next((tuple(each) for each in named if each), ())
        loss = {Regress: "regression", Span: "span"}.get(type(part), getattr(part, "loss", "softmax"))
        return Predicted(logits[there], told[label][there], names, loss, np.flatnonzero(there))


def _entries(part: Classify | Regress | Span | TagTokens) -> tuple[str, str]:
    """The batch's entry of an objective's label, and the input that has it."""
    if isinstance(part, Classify | Regress):
        return part.label, part.label
    return (part.span if isinstance(part, Span) else part.tags), part.modality


class Matcher:
    """Matches rows of a split by a `Matching` objective: gives the probability that they belong together.

    Its towers' tokens of every row are computed once and kept in this machine's memory (rows x tokens x width x 4
    bytes, of both inputs).
    """

    def __init__(self, predictor: SplitPredictor, variables: Variables, split: str, objective: str):
        self._predictor, self._variables, self._objective = predictor, variables, objective
        self.inputs, self._tokens = predictor.tokens(variables, split, objective)

    def __call__(self, *rows: Int[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        """The probability of each pair. rows: of each input in `inputs`, in the order of the split."""
        return self._predictor.matched(self._variables, self._tokens, rows, self._objective)


class Foresight(NamedTuple):
    """A model's objectives on one split, to be asked what they predict: for evaluators."""

    predictor: SplitPredictor
    variables: Variables
    split: str
    known: dict[Any, Any]
    """What was written, which several evaluators and the report read."""

    def inputs(self, objective: str) -> tuple[str, ...]:
        """The inputs that an objective reads."""
        return self.predictor.inputs(objective)

    @property
    def kinds(self) -> dict[str, type[Input]]:
        """The kind of each entry of the data."""
        return self.predictor.kinds

    def __call__(
        self,
        objective: str,
        without: Collection[str] = (),
        labelled: bool = True,
        disturb: Disturbed | None = None,
    ) -> Predicted:
        """The predictions of an objective, perhaps without some of its inputs, or with one disturbed; see
        `SplitPredictor`."""
        return self.predictor(self.variables, self.split, objective, without, labelled, disturb)

    def vectors(self, disturb: Disturbed) -> Float[np.ndarray, "n e"]:
        """The embeddings of an input of the split's rows, as it is when disturbed."""
        return self.predictor.vectors(self.variables, self.split, disturb)

    def word_maps(self, count: int) -> list[Looked]:
        """Maps of what words look at in a few examples of the split; see `SplitMaps`."""
        return self.predictor.word_maps(self.variables, self.split, count)

    def column(self, name: str) -> list[Any]:
        """A column of every row of the split, which needs no embedding; see `whole_column`."""
        return self.predictor.column(self.split, name)

    def words(self, objective: str) -> Spelled:
        """The sums over all words that an objective predicts on the split; see `SplitWords`."""
        return self.predictor.words(self.variables, self.split, objective)

    def written(self, objective: str, prompt: str | tuple[str, ...], most: int, beams: int | None) -> WrittenSplit:
        """The texts that an objective writes of the split's examples; see `SplitWriter`."""
        key = (objective, prompt, most, beams)
        if key not in self.known:
            search = None if beams is None else Beams(beams)
            self.known[key] = self.predictor.writing(self.variables, self.split, objective, prompt, most, search)
        return self.known[key]

    def answered(self, objective: str, messages: str, most: int, history: int | None) -> list[AnsweredTurn]:
        """The answers that an objective writes in the conversations of a column; see `SplitDialogues`."""
        key = (objective, messages, most, history, "answers")
        if key not in self.known:
            told = list(map(conversation_or_none, self.column(messages)))
            found = self.predictor.writing.answers(self.variables, self.split, objective, told, most, history)
            self.known[key] = found
        return self.known[key]

    def ranked_answers(
        self, objective: str, messages: str, options: Mapping[tuple[int, int], Sequence[str]], history: int | None
    ) -> tuple[dict[tuple[int, int], Any], dict[tuple[int, int], str]]:
        """The log-probabilities of options for answers in the conversations of a column, by row and the answer's
        number, and what was answered; see `SplitDialogues`."""
        told = list(map(conversation_or_none, self.column(messages)))
        writing = self.predictor.writing
        scores = writing.answer_scores(self.variables, self.split, objective, told, options, history)
        return scores, {(row, number): answer_words(told[row], number) for row, number in scores}

    def towers_of(self, source: str, image: str) -> OtherTowers:
        """The towers of another model, by its path or name, on the split's pictures."""
        key = (source, image, "towers")
        if key not in self.known:
            self.known[key] = self.predictor.towers_of(source, self.split, image)
        return self.known[key]

    def option_scores(self, objective: str, prompts: Sequence[str], options: Sequence[Sequence[str]]) -> dict[int, Any]:
        """The log-probabilities of each example's options, by its row; see `SplitWriter`."""
        return self.predictor.writing.option_scores(self.variables, self.split, objective, prompts, options)

    def matcher(self, objective: str) -> Matcher:
        """Encodes the split's rows, to tell which belong together."""
        return Matcher(self.predictor, self.variables, self.split, objective)
