"""Captions that a model writes, against those that people, or whatever else, wrote."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.written.caption_scores import caption_scores
from mmjax.evaluate.metrics.written.caption_words import caption_words
from mmjax.evaluate.metrics.written.diversity import diversity_scores
from mmjax.evaluate.metrics.written.java_metrics import java_metrics
from mmjax.evaluate.samples import SampleLine, WrittenSample, spread


@dataclass(frozen=True)
class Captions(Evaluator):
    """Has a `Caption` objective write of every example of a split, and measures how near that is to its references:
    BLEU-1 to 4, ROUGE-L and CIDEr-D as COCO's captions are measured, but for the tokeniser (`caption_words`), which
    needs no Java.

    objective: its name in the experiment. references: the column that holds an example's list of captions, or one; a
    source's list that is also trained on is read as a second column, `Tfds("described_emoji", fields={"text":
    "captions", "captions": "captions"})`. prompt: what each text begins with, and isn't counted. most: the most words
    of a text, in tokens. beams: the width of a search; None: the likeliest word each time.

    Metrics: `<name>/<objective>/bleu1` to `bleu4`, `rouge_l`, `cider_d` (up to 10), perhaps `meteor` and `spice`; and
    of the texts themselves `distinct_1` and `distinct_2`, `repetition`, `different` and `length`; `examples`.
    """

    objective: str
    references: str = "captions"
    prompt: str = ""
    most: int = 64
    beams: int | None = None
    java: bool = False
    split: str = "validation"
    when: When = "always"
    name: str = "captions"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.references,)

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective or column, or no example has references."""
        model = embedded.model("Captions", "write nothing")
        given = model.column(self.references)
        found = model.written(self.objective, self.prompt, self.most, self.beams)
        pairs = [(text, several(given[row])) for text, row in zip(found.texts, found.rows, strict=True)]
        pairs = [(text, references) for text, references in pairs if references]
        if not pairs:
            raise UserError(
                f"Captions(references={self.references!r}): no example of the {embedded.split} split has a reference"
            )
        texts, references = zip(*pairs, strict=True)
        scores = caption_scores(texts, references).corpus | (self._by_java(texts, references) if self.java else {})
        scores |= diversity_scores([caption_words(text) for text in texts])
        prefix = f"{self.name}/{self.objective}"
        return {f"{prefix}/{name}": float(value) for name, value in scores.items()} | {
            f"{prefix}/examples": float(len(texts))
        }

    def samples(self, embedded: Embedded) -> list[WrittenSample]:
        """A few texts, each with its first reference."""
        model = embedded.model("Captions", "write nothing")
        given = model.column(self.references)
        found = model.written(self.objective, self.prompt, self.most, self.beams)
        made = []
        for text, row in spread(list(zip(found.texts, found.rows, strict=True))):
            known = [SampleLine("reference", text) for text in several(given[row])[:1]]
            made.append(WrittenSample(f"{self.name}/{self.objective}", row, (SampleLine("wrote", text), *known)))
        return made

    def _by_java(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        words = [caption_words(text) for text in texts]
        found = java_metrics(words, [[caption_words(text) for text in each] for each in references])
        if found.left_out:
            warnings.warn(f"Captions(java=True): {found.left_out}", stacklevel=2)
        return found.corpus


def several(given: object) -> list[str]:
    """The references of a cell: those of a list that aren't empty, or the one."""
    if given is None:
        return []
    each = [given] if isinstance(given, str) else list(np.asarray(given, object)) if np.iterable(given) else []
    return [text for text in each if isinstance(text, str) and text.strip()]
