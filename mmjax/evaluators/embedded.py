"""What an evaluator is given, and what it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float

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
    """

    embeddings: dict[str, Float[np.ndarray, "n e"]]
    valid: dict[str, Bool[np.ndarray, " n"]]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    split: str = "validation"
    history: list[dict[str, Any]] = field(default_factory=list)
    workdir: Path | None = None

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values()), ()))

    def column(self, name: str, who: str) -> list[Any]:
        """The column of that name; a ValueError that lists the columns there are, for `who` asked."""
        if name not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            raise ValueError(f"{who} reads column {name!r}, which the {self.split} split lacks; it has: {known}")
        return self.columns[name]


class Evaluator(Protocol):
    """Embeddings to numbers.

    name: starts the names of its metrics, and picks it on the command line.
    split: what it reads.  when: at every evaluation of a training run, or only at its end.
    inputs: entries of the batch that it wants kept besides embeddings.
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
