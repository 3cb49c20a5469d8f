"""Collects the contents of a page: each split as it was embedded, its numbers, and its evaluators' decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When, protocols
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.report.media import Raw
from mmjax.evaluate.samples import WrittenSample

LOOKED = 4  # examples of a split in which words' attention is followed


@dataclass(frozen=True)
class Findings:
    """The numbers and embeddings of one split, which its page shows.

    same: the column whose equal values are right for one another (`Evaluator.same`). raw: gives the example's picture
    or sound, as it lies in the data. protocols: how the numbers count, a sentence an evaluator. heard: by modality,
    seconds of a sound that the model hears at most (`spans.heard_of`); None: all of it. looked: what words look at in a
    few examples (`split_maps.Looked`), where the model has a fusion that can be followed. samples: of what was written.
    """

    embedded: Embedded
    numbers: dict[str, float]
    classified: list[Classified]
    same: str | None
    raw: Raw
    protocols: Sequence[str] = ()
    heard: Mapping[str, float | None] = field(default_factory=dict)
    looked: Sequence[Any] = ()
    samples: Sequence[WrittenSample] = ()

    @property
    def split(self) -> str:
        """The split's name."""
        return self.embedded.split


@dataclass(frozen=True)
class Collector(Evaluator):
    """An evaluator that runs last, has no metrics, and keeps the results for a page in `kept`.

    evaluators: those before it, on the same split.
    """

    evaluators: Sequence[Evaluator]
    raw: Raw
    split: str = "test"
    kept: list[Findings] = field(default_factory=list, compare=False)
    when: When = "always"
    name: str = "report"
    inputs: tuple[str, ...] = ()
    heard: Mapping[str, float | None] = field(default_factory=dict)
    reads_classified = True
    gives_numbers = False

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        found = embedded.history[-1] if embedded.history else {}  # metrics of the evaluators before it
        numbers = {name: value for name, value in found.items() if name not in ("step", "split")}
        same = next((e.same for e in self.evaluators if e.between_modalities and e.same is not None), None)
        kept = replace(embedded, inputs={}, history=[], classified=[])
        said = protocols(self.evaluators).get(self.split, [])
        looked = () if embedded.predictions is None else embedded.predictions.word_maps(LOOKED)
        samples = [sample for each in self.evaluators for sample in each.samples(embedded)]
        self.kept.append(
            Findings(kept, numbers, embedded.classified, same, self.raw, said, self.heard, looked, samples)
        )
        return {}
