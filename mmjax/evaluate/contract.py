"""The contract of evaluators, and the embedded split that they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data.embedding_files import Embeddings
from mmjax.data.kinds import Kinds, kind_of, words_of
from mmjax.data.transforms.contract import require_own_fields
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.samples import WrittenSample

EmbedText = Callable[[Sequence[str]], Float[np.ndarray, "n e"]]  # maps strings to unit vectors
When = Literal["always", "end"]


@dataclass(frozen=True)
class Embedded:
    """A split, embedded once for all its evaluators; rows are in the order of the data.

    embeddings: unit vectors by modality, fp32.
    valid: by modality, whether the example has it; other rows of `embeddings` are undefined.
    columns: further values of each example: `id`, `text` and labels such as `group`; N values each.
    inputs: the batch entries that an evaluator asked for in `inputs` (say pictures, u8 `[N, H, W, 3]`).
    history: the run's metrics so far, as in metrics.jsonl, with those of the evaluators before this one.
    workdir: the folder in which an evaluator may write pictures.
    class_names: by column of numbers, the names of its classes, in order.
    fit: the split that the evaluator named as `fit_split`.
    classified: the decisions of the evaluators before this one, for one that `reads_classified`.
    losses: of the objectives on `count` batches of the split, drawn by `seed` (see `Losses`); None without a model.
    predictions: the model's objectives, to be asked what they predict on the split (see `Accuracy`); None without one.
    contents: by modality, what each row's picture or sound is recognised by: the same in rows that hold the same one,
    of which one alone need be valid, for it isn't encoded again; None where there is nothing to tell
    (`pairs.items_of`).
    kinds: what each modality is, as its chain says; what is lacking goes by its name (`kinds.kind_of`).
    """

    embeddings: dict[str, Float[np.ndarray, "n e"]]
    valid: dict[str, Bool[np.ndarray, " n"]]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    split: str = "validation"
    history: list[dict[str, Any]] = field(default_factory=list)
    workdir: Path | None = None
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fit: Embedded | None = None
    classified: list[Classified] = field(default_factory=list)
    losses: Callable[..., dict[str, float]] | None = None
    predictions: Any = None  # `split_predictions.Foresight`, which would bring jax
    contents: dict[str, list[str | None]] = field(default_factory=dict)
    kinds: dict[str, type[Input]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Embeddings) -> Embedded:
        """Reads what a folder of embeddings holds."""
        kinds = {name: TextInput for name in rows.words}
        kinds |= {name: Input for name in rows.embeddings if name not in rows.words and kind_of(name, {}).words}
        return cls(rows.embeddings, rows.valid, rows.columns, split=rows.split, contents=rows.contents, kinds=kinds)

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values()), ()))

    def column(self, name: str, who: str) -> list[Any]:
        """The column of that name; else raises UserError for `who`, with the existing columns."""
        if name not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            raise UserError(f"{who} reads column {name!r}, which the {self.split} split lacks; it has: {known}")
        return self.columns[name]

    def model(self, who: str, lacking: str) -> Any:
        """The model's `predictions`; else raises UserError for `who`, with what embeddings alone don't do."""
        if self.predictions is None:
            raise UserError(f"{who} needs the model: embeddings alone {lacking}. Evaluate the model itself")
        return self.predictions

    def kind(self, modality: str) -> type[Input]:
        """Returns what a modality is: its kind of input."""
        return kind_of(modality, self.kinds)

    @property
    def captions(self) -> list[Any] | None:
        """Returns what names each example in words: the column of its text; None where there is none."""
        words = words_of({name: self.kind(name) for name in (*self.embeddings, *self.kinds, "text")
                          if name in self.columns})  # fmt: skip
        return None if words is None else self.columns[words]

    def take(self, rows: Int[np.ndarray, " k"]) -> Embedded:
        """Only these rows."""
        return replace(
            self,
            embeddings={name: array[rows] for name, array in self.embeddings.items()},
            valid={name: array[rows] for name, array in self.valid.items()},
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            inputs={name: array[rows] for name, array in self.inputs.items()},
            contents={name: [keys[row] for row in rows] for name, keys in self.contents.items()},
        )


class Evaluator(ABC):
    """The base of all evaluators, of one's own too: they turn embeddings into metrics.

        @dataclass(frozen=True)
        class Spread(Evaluator):
            split: str = "test"
            name: str = "spread"

            def __call__(self, embedded, embed_text):
                return {f"{self.name}/{modality}": float(x.std()) for modality, x in embedded.embeddings.items()}

    An evaluator is a frozen dataclass of plain fields. What it says of itself it says by these names, as a field, a
    property or a plain attribute of its class; what it leaves out is as it stands here. A field that it names without a
    value must be given.

    split: the split that it judges; a field, if `--split` is to set it.
    when: at every evaluation of a training run, or only at its end.
    name: starts the names of its metrics, `<name>/...`, and picks it on the command line; of a class that gives none
    its own name, in small letters.
    inputs: entries of the batch that it wants kept besides embeddings.
    fit_split: the split that it learns from, which it finds in `Embedded.fit`; None: it doesn't learn.
    modalities: whose embeddings it can't do without.  columns: those that it reads.
    between_modalities: whether it compares modalities, so that two must be there; `same` is then the column whose equal
    values are right for one another (None: what shares a row).  classifies: the column whose values it finds.
    embeds_text: whether it has prompts embedded, so that a tower of texts must be there.
    reads_embeddings: where none of a split's evaluators does, it isn't embedded.
    reads_classified: whether it reads `Embedded.classified`, which costs time and memory.
    gives_numbers: whether it has metrics; one that only draws has none.
    protocol: a sentence for readers on how its metrics are counted; None: none is needed.
    """

    split: str = "validation"
    when: When = "always"
    name: str = ""
    inputs: tuple[str, ...] = ()
    fit_split: str | None = None
    modalities: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    between_modalities: bool = False
    same: str | None = None
    classifies: str | None = None
    embeds_text: bool = False
    reads_embeddings: bool = True
    reads_classified: bool = False
    gives_numbers: bool = True
    protocol: str | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        require_own_fields(cls, Evaluator)
        if not cls.name:
            cls.name = cls.__name__.lower()

    @abstractmethod
    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Computes metrics by flat name, e.g. `retrieval/image->text/R@1`; shares are fractions."""

    def classified(self, embedded: Embedded, embed_text: EmbedText) -> list[Classified]:
        """The decision on each example, where the evaluator classifies."""
        return []

    def samples(self, embedded: Embedded) -> list[WrittenSample]:
        """A few examples of what the model wrote, for a page; here none. It is asked after the metrics."""
        del embedded
        return []

    def judged(self, embedded: Embedded, embed_text: EmbedText) -> tuple[dict[str, float], list[Classified]]:
        """Computes metrics and decisions at once, for evaluators that find both in one pass."""
        return self(embedded, embed_text), self.classified(embedded, embed_text)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it reads: the one that it judges, and the one that it learns from."""
        return (self.split,) if self.fit_split is None else (self.split, self.fit_split)

    def keeps(self, kinds: Kinds) -> tuple[str, ...]:
        """The entries of the batch that it wants kept, of a model whose entries are of these kinds. Here: `inputs`."""
        del kinds
        return self.inputs

    def reading(self, entries: Mapping[str, str]) -> Self:
        """The same for a model that calls modalities otherwise: `entries` says how. Here: what its field `modality` is
        set to."""
        mine = getattr(self, "modality", None)
        other: Any = {"modality": entries[mine]} if isinstance(mine, str) and entries.get(mine, mine) != mine else {}
        return replace(self, **other) if other else self  # pyright: ignore[reportArgumentType]

    def possible(self, modalities: Collection[str], towers: Collection[str], prompts: bool) -> bool:
        """True if it can judge a model with such towers, which embeds prompts or doesn't, on data with such
        modalities."""
        there = [modality for modality in modalities if modality in towers]
        enough = len(there) > 1 or not self.between_modalities
        return enough and set(self.modalities) <= set(there) and (prompts or not self.embeds_text)

    def on(self, split: str) -> Self:
        """A copy that judges another split, at every evaluation. Raises UserError where it has no field `split`."""
        known = {each.name for each in fields(self)} if is_dataclass(self) else set()
        if "split" not in known:
            who = type(self).__name__
            raise UserError(
                f"{self.name} is judged on the {self.split} split, and {who} has no field for another, {split!r}: "
                f"write `split: str = {self.split!r}` among the fields of {who}, a frozen dataclass"
            )
        always: dict[str, Any] = {"when": "always"} if "when" in known else {}
        return replace(self, split=split, **always)  # pyright: ignore[reportArgumentType]


def check_evaluators(given: Iterable[Any]) -> None:
    """Raises UserError where one of them isn't an `Evaluator`."""
    for each in given:
        bare = [] if is_dataclass(each) else [n for n, v in vars(type(each)).items() if isinstance(v, Field)]
        if bare and bare[0] not in vars(each):
            who = type(each).__name__
            raise UserError(f"{who} names {bare[0]!r} without a value, and is no dataclass: put @dataclass above it")
        if not isinstance(each, Evaluator):
            who = each.__name__ if isinstance(each, type) else type(each).__name__
            what = f"{who} is a class" if isinstance(each, type) else f"{repr(each)[:80]} is no evaluator"
            raise UserError(
                f"{what}: an evaluator is one of mmjax.evaluate, such as Retrieval(), or of a class of one's own that "
                f"inherits from mmjax.evaluate.Evaluator, as `class {who}(Evaluator)` does"
            )


def splits_read(evaluators: Iterable[Evaluator]) -> list[str]:
    """The splits that evaluators read, each once. Raises UserError where one of them isn't an `Evaluator`."""
    evaluators = list(evaluators)
    check_evaluators(evaluators)
    return list(dict.fromkeys(split for evaluator in evaluators for split in evaluator.splits))


def protocols(evaluators: Sequence[Evaluator]) -> dict[str, list[str]]:
    """The sentences of evaluators on how their metrics are counted (`protocol`), by split."""
    found: dict[str, list[str]] = {}
    for evaluator in evaluators:
        said, mine = evaluator.protocol, found.setdefault(evaluator.split, [])
        mine += [said] if said is not None and said not in mine else []
    return found


Variables = dict[str, Any]  # Linen's collections
