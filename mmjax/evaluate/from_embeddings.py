"""`mmjax evaluate --embeddings`: judges embeddings that `mmjax embed` wrote, without the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmjax.data import embedding_files
from mmjax.data.sources.splits import WHOLE
from mmjax.errors import UserError
from mmjax.evaluate import published
from mmjax.evaluate.benchmarks import BENCHMARKS
from mmjax.evaluate.contract import Embedded, Evaluator, protocols
from mmjax.evaluate.evaluate import check_judged, evaluate
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.evaluate.model import choose, tell
from mmjax.evaluate.tables import Results
from mmjax.runtime.files import output


class Cached:
    """Folders of embeddings, by split, in place of the model (`evaluate.Embeds`)."""

    losses = predictor = None  # they need the model
    kinds: Mapping[str, Any] = {}  # nor are there inputs to be kept

    def __init__(self, folders: Sequence[str | Path]):
        """Raises UserError where one can't be read, or they aren't splits of one dataset by one model."""
        self.manifests = [embedding_files.manifest(folder) for folder in folders]
        self.folders: dict[str, Path] = {}
        for folder, told in zip(folders, self.manifests, strict=True):
            for what, same in (("model", "digest"), ("data", "name")):
                mine, first = told[what], self.manifests[0][what]
                if mine[same] != first[same]:
                    key = "source" if what == "model" else "name"
                    raise UserError(
                        f"{folder} is by other {what} than {folders[0]}: {mine[key]}, and {first[key]} there"
                    )
            split = told["data"]["split"]
            if split in self.folders:
                raise UserError(f"{folder} and {self.folders[split]} are both of the {split} split: give one of them")
            self.folders[split] = Path(folder)

    def split(self, variables: Any, split: str, inputs: Any = ()) -> Embedded:
        """The embeddings of a split, from its folder."""
        if split not in self.folders:
            have = ", ".join(f"{folder} ({name})" for name, folder in self.folders.items())
            source, name = self.manifests[0]["model"]["source"], self.manifests[0]["data"]["name"]
            raise UserError(
                f"there are no embeddings of the {split} split among {have}: give their folder too, which "
                f"`mmjax embed {source} {name} --split {split} --out DIR` writes"
            )
        return Embedded.of(embedding_files.read(self.folders[split]))

    def text(self, variables: Any, strings: Sequence[str]) -> np.ndarray:
        """Always raises UserError: prompts need the model."""
        raise UserError("prompts need the model: embeddings are of the data alone")


def evaluate_embeddings(
    folders: Sequence[str | Path],
    *,
    labels: Sequence[str] = (),
    split: str | None = None,
    evaluators: Sequence[str] | None = None,
    json_path: str | Path | None = None,
    console: Console | None = None,
) -> Results:
    """Judges embeddings of one dataset by one model, a folder for each split; evaluators learn from `train` where there
    are other splits.

    A benchmark is judged as in `evaluate_model`, as far as that needs no prompts; other data by `Retrieval` between its
    modalities. labels: columns that `KNN` and `Probe` classify too, by every modality but text (the evaluator is then
    called `knn`, or `knn_<modality>` where there are several). split: judges only that one.
    evaluators: names; None: all whose inputs exist. Prints and writes as `evaluate_model`.

    Raises:
        UserError: folders that don't go together, or an evaluator that needs the model or a split that isn't there.
    """
    output.check_writable(json_path)
    cached = Cached(folders)
    told = cached.manifests[0]
    name, modalities = told["data"]["name"], list(told["modalities"])
    words = embedding_files.words(told)
    if split is not None and split not in cached.folders:
        cached.split({}, split)  # raises
    judged_on = [split] if split else [s for s in cached.folders if s != "train"] or ["train"]
    own: tuple[Evaluator, ...] = ()
    if name in BENCHMARKS:  # whose columns the model may call otherwise
        read = {column: entry for entry, column in told["data"].get("columns", {}).items()}
        own = tuple(evaluator.reading(read) for evaluator in BENCHMARKS[name].evaluators)
    if any(e.embeds_text and e.name in (evaluators or ()) for e in (*own, ZeroShot(""))):
        raise UserError(
            f"zeroshot asks the model for prompts, and {folders[0]} holds the data alone: "
            f"mmjax evaluate {told['model']['source']} --on {name} --evaluators zeroshot"
        )
    every = [e for e in own if not e.embeds_text and e.split in judged_on]
    if not any(e.between_modalities for e in every):
        every += [Retrieval(each) for each in judged_on]
    if labels and WHOLE in judged_on:
        raise UserError(
            f"{cached.folders[WHOLE]} holds all rows, those too that KNN and Probe would learn from: embed --split "
            "train and --split test, and give both folders"
        )
    seen = [modality for modality in modalities if modality not in words] or modalities
    every += [e for each in judged_on for label in labels for e in _classifiers(label, each, seen)]
    possible = [e for e in every if e.possible(modalities, modalities, prompts=False)]
    there = [e for e in possible if e.fit_split is None or e.fit_split in cached.folders]
    for absent in (e for e in possible if e not in there and (e.name in (evaluators or ()) or e.classifies in labels)):
        cached.split({}, absent.fit_split or "")  # raises: the split is missing
    if not there:
        raise UserError(
            f"{folders[0]} has {', '.join(modalities)} of the {judged_on[0]} split alone, and nothing to judge it by: "
            "give --label COLUMN, and a folder of the train split to learn from"
        )
    chosen = choose(there, evaluators, None)
    step = told["model"]["step"]
    results = evaluate(cached, {}, chosen, step=step or 0, workdir=None)
    check_judged(results, chosen, name)
    source = told["model"]["source"]
    where = {"model": source, "step": step, "on": name, "embeddings": [str(folder) for folder in folders]}
    beside = published.beside(source, name, results, [e for e in chosen if e in own])
    tell(results, where, beside, source, json_path, console, protocols(chosen))
    return results


def _classifiers(label: str, split: str, seen: Sequence[str]) -> list[Evaluator]:
    fit = "train" if split != "train" else None
    return [
        kind(label, split, fit, modality=modality, name=name if len(seen) == 1 else f"{name}_{modality}")
        for modality in seen
        for kind, name in ((KNN, "knn"), (Probe, "probe"))
    ]
