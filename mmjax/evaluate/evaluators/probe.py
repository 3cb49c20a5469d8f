"""Linear probes: linear classifiers trained on frozen embeddings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, When
from mmjax.evaluate.decisions import Classified, taken_for
from mmjax.evaluate.metrics.fit_split import Part, judged
from mmjax.evaluate.metrics.labels import LabelEvaluator, Metrics, found_metrics, mean_average_precision, places
from mmjax.evaluate.metrics.linear import Targets, logistic, ridge

STRENGTHS = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Probe(LabelEvaluator):
    """A linear classifier, trained on the embeddings of `fit_split` and judged on those of `split`.

    On all of them it is a multinomial logistic regression, found by L-BFGS (for a column of lists, one of each class
    against the rest); its L2 strength is the one of `strengths` that does best (top 1, or mAP; the stronger of equal
    ones) on a `validation` share of `fit_split`, drawn by `seed` class by class; it then learns from all of it.
    shots: further classifiers, from so many examples a class, drawn `draws` times by `seed`: a ridge regression to +1
    and -1 in closed form, with the strength `ridge` times the mean square of the centred embeddings. A class with fewer
    examples uses all of them; in a column of lists an example that one class draws is used for all classes, its own as
    +1 and the others as -1. shots=(1, 5) with whole=False trains only these.
    label: the column that holds the class. modality: the one that is classified.
    folds: a column; each of its values is judged after learning from all others, and `fit_split` isn't read.

    Examples without the label or the modality are left out; a class that `fit_split` lacks is never found; ties, and
    NaN, count against the model. Metrics: `<name>/<label>/top1`, `top5`, `recall` and counts as in `ZeroShot` (`mAP`
    for lists), and `log10_strength`, the chosen one; `<name>/<label>/<n>shot/top1`, the mean over draws, and
    `top1_std` (`mAP` and `mAP_std` for lists).
    """

    label: str
    split: str = "validation"
    fit_split: str | None = "train"
    whole: bool = True
    strengths: tuple[float, ...] = STRENGTHS
    validation: float = 0.1
    shots: tuple[int, ...] = ()
    draws: int = 5
    ridge: float = 0.1
    seed: int = 0
    modality: str = "image"
    folds: str | None = None
    when: When = "always"
    name: str = "probe"
    inputs: tuple[str, ...] = ()

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> Metrics:
        return self.judged(embedded, embed_text)[0]

    def classified(self, embedded: Embedded, embed_text: EmbedText) -> list[Classified]:
        """The class that each example was assigned by the classifier trained on all examples.

        Empty for a column of lists, and without `whole`.
        """
        return self.judged(embedded, embed_text)[1]

    def judged(self, embedded: Embedded, embed_text: EmbedText) -> tuple[Metrics, list[Classified]]:
        """Metrics and decisions, with the classifiers trained once."""

        def judge(known: Part, asked: Part) -> tuple[Metrics, Int[np.ndarray, " n"] | None]:
            metrics, found = self._on_all(known, asked) if self.whole else ({}, None)
            for count in self.shots:
                metrics |= self._on_few(known, asked, count)
            return metrics, found

        return judged(self, embedded, judge)

    def _on_all(self, known: Part, asked: Part) -> tuple[Metrics, Int[np.ndarray, " n"] | None]:
        strength = self.strengths[0] if len(self.strengths) == 1 else self._chosen(known)
        model = logistic(known.vectors, _targets(known), known.classes, strength)
        prefix = f"{self.name}/{self.label}"
        scores = model(asked.vectors)
        metrics = self._metrics(scores, asked, prefix)
        found = None if asked.several is not None else taken_for(scores, asked.number, places(scores, asked.number))
        return (metrics | {f"{prefix}/log10_strength": float(np.log10(strength))} if metrics else {}), found

    def _chosen(self, known: Part) -> float:
        held = held_out(known, self.validation, self.seed)
        if not held.any():
            raise UserError(
                f"Probe(strengths=...): no class of {self.label!r} has two examples, so none can be held out to choose "
                f"by: give one strength"
            )
        learns, judges = known.take(~held), known.take(held)
        scores, model = {}, None
        for strength in sorted(self.strengths, reverse=True):  # the next weaker one starts from this solution
            model = logistic(learns.vectors, _targets(learns), learns.classes, strength, start=model)
            found = self._metrics(model(judges.vectors), judges, "")
            scores[strength] = found.get("/top1", found.get("/mAP", 0.0))
        return max(scores, key=lambda strength: (scores[strength], strength))

    def _on_few(self, known: Part, asked: Part, count: int) -> Metrics:
        measure = "top1" if asked.several is None else "mAP"
        shares = []
        for draw in range(self.draws):
            few = known.take(drawn_rows(_targets(known), count, np.random.default_rng((self.seed, draw))))
            if not len(few.vectors):  # all lists may be empty
                return {}
            model = ridge(few.vectors, _targets(few), few.classes, self.ridge)
            found = self._metrics(model(asked.vectors), asked, "")
            if not found:
                return {}
            shares.append(found[f"/{measure}"])
        prefix = f"{self.name}/{self.label}/{count}shot/{measure}"
        return {prefix: float(np.mean(shares)), f"{prefix}_std": float(np.std(shares))}

    def _metrics(self, scores: Float[np.ndarray, "n c"], asked: Part, prefix: str) -> Metrics:
        if asked.several is not None:
            found = mean_average_precision(scores, asked.several, tie=0.0)
            return {} if found is None else {f"{prefix}/mAP": found}
        return found_metrics(places(scores, asked.number), asked.number, prefix, asked.vectors)


def _targets(part: Part) -> Targets:
    """Class numbers, or for lists a mask of the classes of each example."""
    return part.number if part.several is None else part.several


def held_out(part: Part, share: float, seed: int) -> np.ndarray:
    """A mask `[n]` of the examples that choose the strength: this share of each class with two or more, at least one.

    In a multi-label part this share of all examples.
    """
    rng = np.random.default_rng((seed, 2**32 - 1))
    held = np.zeros(len(part.vectors), bool)
    kinds = part.number if part.several is None else np.zeros(len(held), np.int64)
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        held[rows[: max(1, round(share * len(rows))) if len(rows) > 1 else 0]] = True
    return held


def drawn_rows(targets: Targets, count: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Rows of `count` examples of each class, or of as many as it has; each row once, if several classes draw it."""
    if targets.ndim == 1:
        mine = [np.flatnonzero(targets == kind) for kind in np.unique(targets)]
    else:
        mine = [np.flatnonzero(rows) for rows in targets.T]
    every = np.concatenate([rng.permutation(rows)[:count] for rows in mine])
    return every[np.sort(np.unique(every, return_index=True)[1])]
