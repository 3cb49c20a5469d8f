"""What an evaluator is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data.embedding_files import Embeddings
from mmjax.errors import UserError
from mmjax.evaluate.decisions import Classified

EmbedText = Callable[[Sequence[str]], Float[np.ndarray, "n e"]]  # strings -> unit vectors
When = Literal["always", "end"]


@dataclass(frozen=True)
class Embedded:
    """A split, embedded once for all its evaluators; rows are in the order of the data.

    embeddings: unit vectors by modality, fp32.
    valid: by modality, whether the example has it; the other rows of `embeddings` mean nothing.
    columns: what is known of each example besides: `id`, `text` and labels such as `group`; N values each.
    inputs: the batch entries that an evaluator asked for in `inputs` (say pictures, u8 `[N, H, W, 3]`).
    history: the run's metrics so far, as in metrics.jsonl, with what the evaluators before this one have found.
    workdir: where an evaluator that draws may write.
    class_names: by column of numbers, what its classes are called, in order.
    fit: the split that the evaluator asked for as `fit_split`.
    classified: what the evaluators before this one decided, for one that `reads_classified`.
    losses: of the objectives on `count` batches of the split, drawn by `seed` (see `Losses`); None without a model.
    contents: by modality, what each row's picture or sound is recognised by: the same in rows that hold the same one,
    of which one alone need be valid, for it isn't encoded again; None where there is nothing to tell
    (`pairs.items_of`).
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
    contents: dict[str, list[str | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Embeddings) -> Embedded:
        """What a folder of embeddings holds."""
        return cls(rows.embeddings, rows.valid, rows.columns, split=rows.split, contents=rows.contents)

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values()), ()))

    def column(self, name: str, who: str) -> list[Any]:
        """The column of that name; a UserError that lists the columns there are, for `who` asked."""
        if name not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            raise UserError(f"{who} reads column {name!r}, which the {self.split} split lacks; it has: {known}")
        return self.columns[name]

    def take(self, rows: Int[np.ndarray, " k"]) -> Embedded:
        """These rows alone."""
        return replace(
            self,
            embeddings={name: array[rows] for name, array in self.embeddings.items()},
            valid={name: array[rows] for name, array in self.valid.items()},
            columns={name: [values[row] for row in rows] for name, values in self.columns.items()},
            inputs={name: array[rows] for name, array in self.inputs.items()},
            contents={name: [keys[row] for row in rows] for name, keys in self.contents.items()},
        )


def fit_split(evaluator: Any) -> str | None:
    """The split that an evaluator learns from, embedded for it too; None for those that don't learn."""
    return getattr(evaluator, "fit_split", None)


def reads_classified(evaluator: Any) -> bool:
    """Whether an evaluator wants `Embedded.classified`, which costs time and memory."""
    return getattr(evaluator, "reads_classified", False)


def protocols(evaluators: Sequence[Any]) -> dict[str, list[str]]:
    """How evaluators count, by split, in a sentence of each that has one to say (its `protocol`)."""
    found: dict[str, list[str]] = {}
    for evaluator in evaluators:
        said, mine = getattr(evaluator, "protocol", None), found.setdefault(evaluator.split, [])
        mine += [said] if said is not None and said not in mine else []
    return found


def reads_embeddings(evaluator: Any) -> bool:
    """Whether an evaluator looks at embeddings; where none of a split's does, it isn't embedded."""
    return getattr(evaluator, "reads_embeddings", True)


class Evaluator(Protocol):
    """Embeddings to numbers.

    name: starts the names of its metrics, and picks it on the command line.
    split: what it reads.  when: at every evaluation of a training run, or only at its end.
    inputs: entries of the batch that it wants kept besides embeddings.
    One that learns from another split names that as `fit_split`, and finds it in `Embedded.fit`.
    """

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def when(self) -> When: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Metrics by flat name, e.g. `retrieval/image->text/R@1`; shares are fractions."""
        ...


Variables = dict[str, Any]  # Linen's collections
