"""Datasets that models are judged on, by name: their splits, fields, evaluators and prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmjax.data.kinds import Kinds, entries, kinds_of, words_of
from mmjax.data.pipeline import Mixture
from mmjax.data.sources.contract import MODALITIES, Source
from mmjax.data.sources.every_caption import EveryCaption
from mmjax.data.sources.folder import Folder, table_like
from mmjax.data.sources.renamed import Renamed
from mmjax.data.sources.splits import WHOLE
from mmjax.data.sources.tables import SUFFIXES, is_table
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.image import seen_upright
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError, unknown
from mmjax.evaluate.contract import Evaluator, check_evaluators
from mmjax.evaluate.evaluators.class_lists import checked_templates
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.experiment.definition import Experiment
from mmjax.runtime import counts, hosts


@dataclass(frozen=True)
class Benchmark:
    """A dataset and the evaluators that judge on it.

    source: the dataset, with the names of its fields. modalities: those of each example.
    evaluators: all that can be chosen by name. default: those that run unless others are named.
    """

    source: Source
    modalities: tuple[str, ...]
    evaluators: tuple[Evaluator, ...]
    default: tuple[str, ...] = ("zeroshot", "knn", "probe", "retrieval")


def _imagenet(name: str, split: str, present: bool = False) -> Benchmark:
    """A benchmark of the 1,000 classes, or those `present`, by CLIP's names and 80 prompts (Radford et al. 2021,
    arXiv:2103.00020).

    Only imagenet2012 has KNN and Probe: the variants have no training split.
    """
    zeroshot = ZeroShot("label", split, "clip80", "imagenet", present=present)
    learning = () if name != "imagenet2012" else (KNN("label", split), Probe("label", split))
    return Benchmark(Tfds(name), ("image",), (zeroshot, *learning), ("zeroshot",))


def _pictures(name: str, templates: tuple[str, ...] | str) -> Benchmark:
    """A benchmark with splits train and test, and a column `label` whose classes the dataset itself names."""
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
    "imagenet2012": _imagenet("imagenet2012", "validation"),  # its test split has no labels
    "imagenet_v2": _imagenet("imagenet_v2", "test"),
    "imagenet_sketch": _imagenet("imagenet_sketch", "test"),
    "imagenet_a": _imagenet("imagenet_a", "test", present=True),  # 200 of the classes, as in the paper
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
    """A dataset to judge an experiment's model on, and its evaluators.

    columns: of a table, what there is to read; None: of a benchmark. free: those of them that no tower reads.
    """

    data: Mixture
    evaluators: tuple[Evaluator, ...]
    default: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    free: tuple[str, ...] = ()

    def lacking(self, evaluator: Evaluator) -> str | None:
        """The column that an evaluator reads and the table lacks; None where there is none."""
        return next((c for c in evaluator.columns if self.columns is not None and c not in self.columns), None)

    @property
    def labels(self) -> str:
        """The columns that may be labels, as a hint."""
        return f"name one with --label, of {', '.join(self.free)}" if self.free else "it has no column of labels"


def benchmark(
    name: str,
    experiment: Experiment,
    data_dir: str | None = None,
    labels: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> On:
    """Makes a benchmark, or a table of one's own files (`Folder`), ready for an experiment, with its transforms and
    modalities.

    data_dir: the folder where a benchmark's dataset is, or is built (None: TFDS's own).

    On a table the experiment's evaluators read all rows, except those that learn from another split. An experiment
    without (another project's model has none) gets `Retrieval`. labels, of a table: columns that `ZeroShot` classifies
    too, by prompts made with the templates.

    Raises:
        UserError: no benchmark has the name (the nearest is named) and it is no table; or the experiment has no tower
            for the dataset's modalities; or the table has no such column.
    """
    kinds = model_kinds(experiment)
    if is_table(name):
        return _on_table(name, experiment, kinds, labels, templates)
    if labels or templates:
        raise UserError(f"{name} has its own labels and prompts: --label and --templates are for tables")
    if name not in BENCHMARKS:
        raise UserError(f"{unknown('--on', name, BENCHMARKS, 'benchmarks')}; or give a table, {', '.join(SUFFIXES)}")
    found = BENCHMARKS[name]
    read = entries(found.modalities, kinds)
    transforms = {entry: experiment.data.transforms[entry] for entry in read.values()}
    if not transforms:
        raise UserError(
            f"{name} has {' and '.join(found.modalities)}, but the experiment has towers for {', '.join(kinds)}"
        )
    prompts = words_of(kinds) is not None
    every = tuple(evaluator.reading(read) for evaluator in found.evaluators)
    evaluators = tuple(e for e in every if e.possible(tuple(read.values()), kinds, prompts))
    if not evaluators:
        raise UserError(f"{name}: none of its evaluators ({', '.join(e.name for e in found.evaluators)}) can judge an "
                        f"experiment with towers for {', '.join(kinds)}")  # fmt: skip
    source = by_entries(found.source if data_dir is None else found.source.at(data_dir), read)
    return On(Mixture({name: 1.0}, transforms, {name: source}), evaluators, found.default)


def model_kinds(experiment: Experiment) -> dict[str, type[Input]]:
    """Returns the kind of each entry that the model has a tower for, in the order of its towers."""
    read, chains = experiment.pretrainer().inputs(), experiment.data.transforms
    names = [*(name for name in experiment.towers if name in read), *(n for n in read if n not in experiment.towers)]
    return kinds_of({name: chains[name] for name in names if name in chains})


def by_entries(source: Source, read: Mapping[str, str]) -> Source:
    """A source by the names of the entries that read its columns (`kinds.entries`)."""
    other = {entry: column for column, entry in read.items() if entry != column}
    return Renamed(source, other) if other else source


def _on_table(name: str, experiment: Experiment, kinds: Kinds, labels: Sequence[str], templates: Sequence[str]) -> On:
    """A table of one's own files, and how it is judged."""
    check_evaluators(experiment.evaluators)
    media = [entry for entry, kind in kinds.items() if not kind.words]
    read_as = hosts.first(lambda: asdict(table_like(name, experiment.data.sources.values(), media)))
    source = Folder(**{**read_as, "files": tuple(read_as["files"])})
    columns = hosts.first(lambda: list(source.open(WHOLE).columns))
    read = entries(columns, kinds)
    there = [entry for entry in kinds if entry in read.values()]
    free = [column for column in columns if column not in ("id", *MODALITIES, *read)]
    if not there:
        usual = [column for column in MODALITIES if column in columns]
        raise UserError(
            f"{name} has {' and '.join(usual or columns)}, but the experiment has towers for {', '.join(kinds)}"
        )
    evaluators = _of_table(name, experiment, kinds, there, free, labels, templates)
    chosen = tuple(e for e in evaluators if e.possible(there, kinds, words_of(kinds) is not None))
    if not chosen:
        raise UserError(_nothing(name, kinds, there, free))
    # People's own pictures are seen upright, as they are when given one by one.
    transforms = {entry: seen_upright(experiment.data.transforms[entry]) for entry in there}
    known = tuple(read.get(column, column) for column in columns)
    mixture = Mixture({name: 1.0}, transforms, {name: by_entries(source, read)})
    return On(mixture, chosen, tuple(e.name for e in evaluators), known, tuple(free))


def _of_table(
    name: str,
    experiment: Experiment,
    kinds: Kinds,
    there: Sequence[str],
    free: Sequence[str],
    labels: Sequence[str],
    templates: Sequence[str],
) -> tuple[Evaluator, ...]:
    """What a table is judged by. there: the entries that it has. free: the columns that may be labels."""
    every: list[Evaluator] = [e if e.fit_split is not None else e.on(WHOLE) for e in experiment.evaluators]
    every = every or [Retrieval(WHOLE)]
    if labels:
        if words_of(kinds) is None:
            raise UserError(
                f"--label {labels[0]}: classes are found by prompts, and the model has no text tower, but "
                f"{', '.join(kinds)}: mmjax embed it, and mmjax evaluate --embeddings with --label"
            )
        for label in labels:
            if label not in free:
                raise UserError(unknown("--label", label, free, f"columns of labels in {name}"))
        seen = [entry for entry in there if not kinds[entry].words]
        if not seen:
            raise UserError(f"--label {labels[0]}: {name} has {', '.join(there)}, and nothing else to classify")
        prompts = templates[0] if len(templates) == 1 else tuple(templates) or ("{}",)
        checked_templates(prompts, "--templates")
        every = [e for e in every if not (e.embeds_text and e.classifies in labels)]
        every += [
            ZeroShot(label, WHOLE, prompts, modality=m, name="zeroshot" if len(seen) == 1 else f"zeroshot_{m}")
            for label in labels
            for m in seen
        ]
    elif templates:
        raise UserError("--templates are the prompts of classes: say which column holds these, --label COLUMN")
    return tuple(dict.fromkeys(every))


def _nothing(name: str, kinds: Kinds, there: Sequence[str], free: Sequence[str]) -> str:
    """What to say of a table that a model can't be judged on as it is."""
    can = f"name a column of labels, --label COLUMN ({', '.join(free)})" if free else "it has no column of labels"
    lacking = [entry for entry in kinds if entry not in there]
    if free and lacking:
        can += f"; if one of them holds the {counts.noun(lacking[0])}s, call it {lacking[0]!r} in the table"
    return f"{name} and the model have {' and '.join(there)} in common, which nothing is to be compared with: {can}"
