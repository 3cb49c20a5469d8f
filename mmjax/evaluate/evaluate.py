"""Evaluation: a split is embedded once, and every evaluator that reads it judges the embeddings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from mmjax.data.kinds import Kinds
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, Evaluator, Variables, check_evaluators
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.split_losses import HeldOut
from mmjax.evaluate.split_predictions import SplitPredictor
from mmjax.evaluate.tables import Results
from mmjax.runtime import counts, hosts, metrics


class Embeds(Protocol):
    """A source of embeddings: a `SplitEmbedder`, or a folder that one wrote."""

    def split(self, variables: Variables, split: str, inputs: Iterable[str] = ()) -> Embedded: ...
    def text(self, variables: Variables, strings: Sequence[str]) -> Float[np.ndarray, "n e"]: ...
    @property
    def losses(self) -> HeldOut | None: ...
    @property
    def predictor(self) -> SplitPredictor | None: ...
    @property
    def kinds(self) -> Kinds: ...


def evaluate(
    embedder: Embeds,
    variables: Variables,
    evaluators: Sequence[Evaluator],
    *,
    step: int,
    workdir: Path | None,
    found: Callable[[str, dict[str, float]], None] = lambda split, values: None,
) -> Results:
    """Judges a model on every split that its evaluators read; metrics by split and flat name, `{"test":
    {"retrieval/image->text/R@1": 0.41}}`.

    workdir: of the run, whose metrics so far evaluators may read, and in which they may draw; None: no run. Each split
    is embedded once, for all evaluators that judge it or learn from it (`fit_split`); not at all where none reads
    embeddings.
    found: called with each split's metrics as soon as they are computed. Of several hosts all judge, and the first one
    draws.

    Raises:
        UserError: two evaluators of a split have a metric of the same name, or one isn't an `Evaluator`.
    """
    results: dict[str, dict[str, float]] = {}
    check_evaluators(evaluators)
    judged_on = list(dict.fromkeys(evaluator.split for evaluator in evaluators))
    splits: dict[str, Embedded] = {}

    def once(split: str) -> Embedded:
        if split not in splits and not any(e.reads_embeddings for e in evaluators if split in e.splits):
            splits[split] = Embedded({}, {}, split=split)
        elif split not in splits:
            wanted = {name for each in evaluators if each.split == split for name in each.keeps(embedder.kinds)}
            splits[split] = embedder.split(variables, split, wanted)
        return splits[split]

    for number, split in enumerate(judged_on):
        mine = [evaluator for evaluator in evaluators if evaluator.split == split]
        losses = embedder.losses and partial(embedder.losses, variables, split, step=step)
        predictions = embedder.predictor and embedder.predictor.on(variables, split)
        place = workdir if hosts.leads() else None
        embedded = replace(once(split), workdir=place, losses=losses, predictions=predictions)
        values: dict[str, float] = {}
        classified: list[Classified] = []
        telling = any(evaluator.reads_classified for evaluator in mine)
        lines = metrics.read(workdir) if workdir is not None and hosts.leads() else []
        before = [line for line in lines if line.get("split") != split or line["step"] != step]
        for evaluator in mine:
            history = [*before, {"step": step, "split": split, **values}]
            learnt = once(evaluator.fit_split) if evaluator.fit_split is not None else None
            given = replace(embedded, history=history, fit=learnt, classified=list(classified))
            text = partial(embedder.text, variables)
            if telling:
                scores, decided = hosts.together(partial(evaluator.judged, given, text))
            else:
                scores, decided = hosts.together(partial(evaluator, given, text)), []
            if twice := sorted(values.keys() & scores.keys()):
                raise UserError(f"two evaluators of the {split} split give {twice[0]!r}: set the field name= of one")
            values |= scores
            classified += decided
        results[split] = values
        found(split, values)
        later = {name for e in evaluators if e.split in judged_on[number + 1 :] for name in e.splits}
        splits = {name: kept for name, kept in splits.items() if name in later}  # frees the memory of the others
    return results


def check_judged(results: Results, chosen: Sequence[Evaluator], on: str) -> None:
    """Raises UserError where evaluators that compare found nothing to compare: no metrics are no result."""
    comparing = [e for e in chosen if e.between_modalities or e.classifies is not None]
    if comparing and not any(counts.scores(values) for values in results.values()):
        names, splits = (
            ", ".join(dict.fromkeys(said)) for said in ([e.name for e in comparing], [e.split for e in comparing])
        )
        raise UserError(
            f"{on}, split {splits}: there was nothing to judge for {names}: no example holds both of what is to be "
            "compared (two of picture, caption and sound, or one of them and a label), in cells that aren't empty and "
            "files that can be read"
        )


def not_finite_paths(variables: Variables) -> list[str]:
    """The paths of arrays that hold NaN or infinity."""
    flat = flatten_dict(variables, sep="/")
    return [path for path, leaf in sorted(flat.items()) if not np.isfinite(np.asarray(leaf, np.float32)).all()]
