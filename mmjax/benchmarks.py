"""Datasets that models are judged on, by name: which split, which fields, and what is measured with which prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmjax import hosts
from mmjax.data.every_caption import EveryCaption
from mmjax.data.pipeline import Mixture
from mmjax.data.sources import Folder, Tfds
from mmjax.data.transforms import seen_upright
from mmjax.errors import UserError, unknown
from mmjax.evaluators.neighbours import KNN
from mmjax.evaluators.probe import Probe
from mmjax.evaluators.retrieval import Retrieval
from mmjax.evaluators.zeroshot import ZeroShot
from mmjax.experiment import Experiment

TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Benchmark:
    """A dataset and how it is judged.

    source: where it is, with what its fields are called.  modalities: what it has of each example.
    evaluators: all that can be asked for by name.  default: those that run unless others are named.
    """

    source: Any
    modalities: tuple[str, ...]
    evaluators: tuple[Any, ...]
    default: tuple[str, ...] = ("zeroshot", "knn", "probe", "retrieval")


def _imagenet(name: str, split: str, present: bool = False) -> Benchmark:
    """The 1,000 classes, or those `present`, by CLIP's names and 80 prompts (Radford et al. 2021, arXiv:2103.00020).

    The others are taught by ImageNet's own training split, which is no split of theirs: they have no probe.
    """
    zeroshot = ZeroShot("label", split, "clip80", "imagenet", present=present)
    learning = () if name != "imagenet2012" else (KNN("label", split), Probe("label", split))
    return Benchmark(Tfds(name), ("image",), (zeroshot, *learning), ("zeroshot",))


def _pictures(name: str, templates: tuple[str, ...] | str) -> Benchmark:
    """Splits train and test, a column `label` whose classes the dataset itself names."""
    evaluators = (ZeroShot("label", "test", templates), KNN("label", "test"), Probe("label", "test"))
    return Benchmark(Tfds(name), ("image",), evaluators)


def _sounds(name: str, split: str, folds: str | None = None) -> Benchmark:
    learns: dict[str, Any] = dict(modality="audio", folds=folds, fit_split="train" if folds is None else None)
    evaluators = (
        ZeroShot("label", split, modality="audio", folds=folds),
        KNN("label", split, **learns),
        Probe("label", split, **learns),
    )
    return Benchmark(Tfds(name), ("audio",), evaluators)


BENCHMARKS: Mapping[str, Benchmark] = {
    "imagenet2012": _imagenet("imagenet2012", "validation"),  # whose test split has no labels
    "imagenet_v2": _imagenet("imagenet_v2", "test"),
    "imagenet_sketch": _imagenet("imagenet_sketch", "test"),
    "imagenet_a": _imagenet("imagenet_a", "test", present=True),  # 200 of the classes, as the paper measures
    "imagenet_r": _imagenet("imagenet_r", "test", present=True),
    "cifar100": _pictures("cifar100", "clip18"),
    "oxford_iiit_pet": _pictures("oxford_iiit_pet", ("a photo of a {}, a type of pet.",)),
    # Karpathy's test split: 5,000 pictures of five captions.
    "coco_captions": Benchmark(
        EveryCaption(Tfds("coco_captions", {"text": "captions/text"})),
        ("image", "text"),
        (Retrieval("test", "of"),),
    ),
    "speech_commands": _sounds("speech_commands", "test"),
    "esc50": _sounds("esc50", "train", folds="fold"),
}


@dataclass(frozen=True)
class On:
    """A dataset to judge an experiment's model on: what is read, and the evaluators that there are."""

    data: Mixture
    evaluators: tuple[Any, ...]
    default: tuple[str, ...]


def benchmark(name: str, experiment: Experiment, data_dir: str | None = None) -> On:
    """A benchmark, or a table of one's own files (`Folder`), for an experiment: with its transforms and modalities.

    data_dir: where a benchmark's dataset is, or is to be built (None: where TFDS has its datasets).

    Raises:
        UserError: no benchmark has the name (the nearest is named) and it is no table; or the experiment has no tower
            for what the dataset holds.
    """
    if Path(name).suffix in TABLES:
        folder = Folder(name)
        found = Benchmark(folder, tuple(hosts.first(folder.modalities)), tuple(experiment.evaluators))
        default = tuple(evaluator.name for evaluator in experiment.evaluators)
    elif name in BENCHMARKS:
        found = BENCHMARKS[name]
        default = found.default
    else:
        raise UserError(f"{unknown('on', name, BENCHMARKS, 'benchmarks')}; or give a table, {', '.join(TABLES)}")
    transforms = {m: experiment.data.transforms[m] for m in found.modalities if m in experiment.towers}
    if isinstance(found.source, Folder):  # people's own pictures, seen upright as they are when given one by one
        transforms = {m: seen_upright(chain) for m, chain in transforms.items()}
    if not transforms:
        raise UserError(
            f"{name} has {' and '.join(found.modalities)}, but the experiment has towers for "
            f"{', '.join(experiment.towers)}"
        )
    evaluators = tuple(e for e in found.evaluators if _possible(e, experiment, found.modalities))
    if not evaluators:
        raise UserError(f"{name}: none of its evaluators ({', '.join(e.name for e in found.evaluators)}) can judge an "
                        f"experiment with towers for {', '.join(experiment.towers)}")  # fmt: skip
    source = found.source if data_dir is None else _in(found.source, data_dir)
    return On(Mixture({name: 1.0}, transforms, {name: source}), evaluators, default)


def _possible(evaluator: Any, experiment: Experiment, modalities: tuple[str, ...]) -> bool:
    """Whether towers are there for what an evaluator reads, as far as that is known of it."""
    needed = {getattr(evaluator, "modality", None)} - {None}
    if isinstance(evaluator, Retrieval):
        return sum(modality in experiment.towers for modality in modalities) > 1
    prompts = {"text"} if isinstance(evaluator, ZeroShot) else set()
    return needed <= set(modalities) and needed | prompts <= experiment.towers.keys()


def _in(source: Any, data_dir: str) -> Any:
    """The source, read from a folder of datasets."""
    if isinstance(source, EveryCaption):
        return replace(source, source=_in(source.source, data_dir))
    return replace(source, data_dir=data_dir) if isinstance(source, Tfds) else source
