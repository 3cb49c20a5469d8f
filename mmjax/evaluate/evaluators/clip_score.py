"""CLIPScore: the fit of written captions to their pictures, by the towers of a model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.evaluators.captions import several
from mmjax.evaluate.metrics.written.clip_score import WEIGHT, clip_scores, ref_clip_scores


@dataclass(frozen=True)
class ClipScore(Evaluator):
    """Has a `Caption` objective write of every picture of a split, and measures how near each text is to its picture in
    the space of a model: CLIPScore, weight * max(cos, 0), and with references RefCLIPScore (Hessel et al. 2021,
    arXiv:2104.08718).

    objective: its name in the experiment. model: the judge, a path or a name as `mmjax.load` takes it
    ("hf:openai/clip-vit-base-patch32" is the paper's); None: the run's own towers, which know what they were trained
    with. image: the pictures. references: the column that holds an example's list of captions, or one; None: without.
    prefix: what stands before each text as the judge reads it. weight: the paper's w. prompt, most, beams: as of
    `Captions`, whose texts these are.

    Metrics: `<name>/<objective>/clip_score`, `ref_clip_score`, beside them `chance_clip_score` of each text with the
    next example's picture, and `examples`.
    """

    objective: str
    model: str | None = None
    image: str = "image"
    references: str | None = None
    prefix: str = "A photo depicts "
    weight: float = WEIGHT
    prompt: str = ""
    most: int = 64
    beams: int | None = None
    split: str = "validation"
    when: When = "always"
    name: str = "clip_score"
    inputs: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.references is None else (self.references,)

    @property
    def reads_embeddings(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True where the run's own towers judge."""
        return self.model is None

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective, column or judge, the judge has no towers of pictures and
        texts, or no example has a picture."""
        model = embedded.model("ClipScore", "write nothing")
        found = model.written(self.objective, self.prompt, self.most, self.beams)
        pictures, valid, text = self._judge(embedded, model, embed_text)
        there = [(words, row) for words, row in zip(found.texts, found.rows, strict=True) if valid[row]]
        if not there:
            raise UserError(f"ClipScore(image={self.image!r}): no example of the {embedded.split} split has a picture")
        rows = np.array([row for _, row in there])
        texts = text([self.prefix + words for words, _ in there])
        scores = clip_scores(pictures[rows], texts, self.weight)
        others = clip_scores(pictures[np.roll(rows, -1)], texts, self.weight)
        values = {"clip_score": float(scores.mean()), "chance_clip_score": float(others.mean())}
        if self.references is not None:
            values |= self._by_references(model, rows, texts, scores, text)
        values["examples"] = float(len(rows))
        return {f"{self.name}/{self.objective}/{name}": value for name, value in values.items()}

    def _judge(self, embedded: Embedded, model: Any, embed_text: EmbedText) -> tuple[Any, Any, EmbedText]:
        """The pictures' vectors, whether each is there, and how texts are embedded."""
        if self.model is not None:
            towers = model.towers_of(self.model, self.image)
            return towers.pictures, towers.valid, towers.text
        if self.image not in embedded.embeddings:
            raise UserError(
                f"ClipScore(model=None) judges by the run's own towers, and there is none of {self.image!r}, but of "
                f"{', '.join(embedded.embeddings) or 'nothing'}: name a model, such as hf:openai/clip-vit-base-patch32"
            )
        return embedded.embeddings[self.image], embedded.valid[self.image], embed_text

    def _by_references(self, model: Any, rows: Any, texts: Any, scores: Any, text: EmbedText) -> dict[str, float]:
        """The RefCLIPScore of the texts that have references."""
        given = model.column(self.references)
        known = {place: several(given[row]) for place, row in enumerate(rows.tolist())}
        kept = [place for place, each in known.items() if each]
        if not kept:
            raise UserError(f"ClipScore(references={self.references!r}): no example has a reference")
        owners = [number for number, place in enumerate(kept) for _ in known[place]]
        vectors = text([self.prefix + words for place in kept for words in known[place]])
        return {"ref_clip_score": float(ref_clip_scores(scores[kept], texts[kept], vectors, owners).mean())}
