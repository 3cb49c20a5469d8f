"""Zero-shot classification by prompts (Radford et al. 2021, arXiv:2103.00020, section 3.1)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, When
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.evaluators.class_lists import checked_templates, class_list, filled
from mmjax.evaluate.metrics.chance import of_classes, of_lists
from mmjax.evaluate.metrics.items import distinct
from mmjax.evaluate.metrics.labels import (
    LabelColumn,
    LabelEvaluator,
    Metrics,
    counted,
    found_metrics,
    labelled,
    mean_average_precision,
    modality_of,
    not_finite,
    over_folds,
    values_of,
)
from mmjax.evaluate.metrics.ranks import TIE, ranks


@dataclass(frozen=True)
class ZeroShot(LabelEvaluator):
    """Classifies each example among all classes by prompts with their names.

    label: the column that holds the class, by name or as its number; or a list of them (multi-label).
    templates: prompts, with `{}` for the class's name, or the name of a list ("clip80": `class_lists.py`), or one
    prompt; a class is the normalised mean of its prompts' embeddings.
    classes: their names in the order of the numbers, or the name of a list ("imagenet"). Without them the dataset's own
    names are used, or else the values in the split. present: only classes that the split has examples of.
    separators: characters of a class that a prompt writes as spaces ("face-smiling" becomes "face smiling"); the names
    of a list by name are unchanged.
    modality: the one that is classified. folds: a column; the metrics are then means over its values, with those of
    each value.

    Rows of one picture and one label are one example. Examples without the modality, or whose label is None or not
    among the classes, are left out. Ties count against the model; but of two classes of the very same name (ImageNet
    has two such pairs) the first comes first, as in published numbers. Metrics: `<name>/<label>/top1`, `top5`, and
    `recall`, the mean over classes of the share found (top 1), which large classes can't dominate; for a multi-label
    column `mAP` (`labels.mean_average_precision`). Besides `examples`, `classes` and `left_out` (examples without a
    label), and the scores of random answers: `chance`, for the first of these scores, and `chance_top5`,
    `chance_recall`.
    """

    label: str
    split: str = "validation"
    templates: tuple[str, ...] | str = ("{}",)
    classes: tuple[str, ...] | str | None = None
    separators: str = "-_"
    modality: str = "image"
    present: bool = False
    folds: str | None = None
    when: When = "always"
    name: str = "zeroshot"
    inputs: tuple[str, ...] = ()
    embeds_text = True

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> Metrics:
        modality_of(embedded, self.modality, "ZeroShot")
        column = embedded.column(self.label, "ZeroShot(label=...)")
        labels = self._labels(embedded, column)
        there = distinct(embedded, self.modality, self.label)
        if not (there & labels.known).any():
            left_out = int(there.sum())
            return counted(f"{self.name}/{self.label}", 0, len(labels.classes), left_out, {}, 0) if left_out else {}
        spoken = [self.spoken(label) for label in labels.classes]
        among, vectors = self._classes(labels, spoken, embed_text)
        twins = np.zeros(len(spoken), np.int64)
        twins[among] = _twins([spoken[i] for i in among])

        def judge(fit: Embedded | None, test: Embedded, places: Int[np.ndarray, " k"] | None = None) -> Metrics:
            del fit, places
            part = labelled(test.columns[self.label], labels.classes, ordered=True)
            there = distinct(test, self.modality, self.label)
            rows = np.flatnonzero(there & part.known)
            if not len(rows):
                return {}
            tested, prefix = test.embeddings[self.modality][rows], f"{self.name}/{self.label}"
            judged, left_out = (len(rows), len(among)), int((there & ~part.known).sum())
            bad = not_finite(tested) if np.isfinite(vectors).all() else len(rows)  # a class of NaN ranks first
            if part.several is not None:
                right = part.several[rows][:, among]
                found = mean_average_precision(tested.astype(np.float32) @ vectors.T, right)
                counts = counted(prefix, *judged, left_out, of_lists(right), bad)
                return {} if found is None else {f"{prefix}/mAP": found} | counts
            number = part.number[rows]
            found = ranks(tested, vectors, number, among) - twins[number]
            whole = tested if np.isfinite(vectors).all() else np.full_like(tested, np.nan)
            metrics = found_metrics(found, number, prefix, whole)
            return metrics | counted(prefix, *judged, left_out, of_classes(len(among)), bad)

        if self.folds is None:
            return judge(None, embedded)
        return over_folds(embedded, self.folds, "ZeroShot", judge)

    def classified(self, embedded: Embedded, embed_text: EmbedText) -> list[Classified]:
        """The class that each example was assigned, as the metrics count it; where the right one ties, the other.

        Empty for a column of lists.
        """
        embeddings = modality_of(embedded, self.modality, "ZeroShot")
        labels = self._labels(embedded, embedded.column(self.label, "ZeroShot(label=...)"))
        rows = np.flatnonzero(distinct(embedded, self.modality, self.label) & labels.known)
        if labels.several is not None or not len(rows):
            return []
        spoken = [self.spoken(label) for label in labels.classes]
        among, vectors = self._classes(labels, spoken, embed_text)
        truth = np.asarray(np.searchsorted(among, labels.number[rows]))
        scores = np.nan_to_num(embeddings[rows].astype(np.float32) @ vectors.T, nan=np.inf)  # NaN counts against
        mine = np.arange(len(rows)), truth
        best = scores[mine]
        names = np.array([spoken[i] for i in among.tolist()])
        later = (names[truth, None] == names) & (np.arange(len(among)) >= truth[:, None])  # itself, and its namesakes
        scores[later] = -np.inf
        found = np.where(scores.max(axis=1) < best - TIE, truth, scores.argmax(axis=1))
        classes = tuple(labels.classes[i] for i in among.tolist())
        return [Classified(f"{self.name}/{self.label}", self.label, classes, rows, truth, found)]

    def _classes(
        self, labels: LabelColumn, spoken: Sequence[str], embed_text: EmbedText
    ) -> tuple[Int[np.ndarray, " among"], Float[np.ndarray, "among e"]]:
        """The classes to choose from, and the embedding of each."""
        templates = checked_templates(self.templates, "ZeroShot(templates=...)")
        several = labels.several
        there = np.unique(labels.number[labels.known]) if several is None else np.flatnonzero(several.any(axis=0))
        among = there if self.present else np.arange(len(spoken))
        return among, class_embeddings([spoken[i] for i in among.tolist()], templates, embed_text)

    def _labels(self, embedded: Embedded, column: Sequence[object]) -> LabelColumn:
        if isinstance(self.classes, str):
            known: tuple[Hashable, ...] | None = class_list(self.classes)
        else:
            known = self.classes or embedded.class_names.get(self.label)
        try:
            return labelled(column, known, ordered=True) if known else labelled(column, values_of(column))
        except UserError as error:
            raise UserError(f"ZeroShot(label={self.label!r}): {error}") from None

    def spoken(self, label: object) -> str:
        """The class's name in a prompt."""
        if isinstance(self.classes, str):
            return str(label)
        return str(label).translate(str.maketrans(dict.fromkeys(self.separators, " ")))


def _twins(names: Sequence[str]) -> Int[np.ndarray, " classes"]:
    """The number of later classes with the same name as each: their ties aren't counted."""
    return np.array([names[i + 1 :].count(name) for i, name in enumerate(names)], np.int64)


def class_embeddings(
    names: Sequence[str], templates: Sequence[str], embed_text: EmbedText
) -> Float[np.ndarray, "classes e"]:
    """The normalised mean, over templates, of each name's unit embeddings; fp32."""
    prompts = [filled(template, name) for name in names for template in templates]
    vectors = np.asarray(embed_text(prompts), np.float32).reshape(len(names), len(templates), -1)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    mean = vectors.mean(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
