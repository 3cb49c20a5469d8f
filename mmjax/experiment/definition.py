"""An experiment: the model, its data, and the length of the run. One Python file that reads like a paper's method
section.

    @experiment
    def tiny() -> Experiment:
        return Experiment(towers={"image": ViT(patch=8, ...)}, objectives={...}, data=Mixture(...), ...)

The function is plain Python. `load_experiment` reads it as a graph of `fdl.Config`s instead of calling it (Fiddle's
`auto_config`): the graph can be overridden by path, compared, and written as JSON beside a checkpoint.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args, runtime_checkable

import fiddle as fdl
import flax.linen as nn

from mmjax.data.pipeline import Mixture
from mmjax.errors import UserError, unknown
from mmjax.experiment import bounds
from mmjax.experiment.compatibility import check_fit, idle
from mmjax.experiment.graph import paths
from mmjax.models.layers.parameters import DtypeName
from mmjax.objectives.pretrainer import Pretrainer, Weight
from mmjax.optim.balance import LossBalance
from mmjax.optim.base import Optimizer
from mmjax.runtime.files.names import plain
from mmjax.runtime.mesh import Mesh
from mmjax.runtime.retention import Best, Keeping


@dataclass(frozen=True)
class Spike:
    """The rule by which a loss far above the usual one is a spike, and its step is skipped like one that isn't finite.

    deviations: number of standard deviations above the mean. window: number of good steps over which mean and deviation
    are taken (exponentially, once there are so many; before, nothing is a spike).

    Raises UserError where a number is out of its range.
    """

    deviations: float = 6.0
    window: int = 200

    def __post_init__(self) -> None:
        if not self.deviations > 0:
            raise UserError(f"Spike(deviations={self.deviations}): a spike lies above the mean, so above 0 deviations")
        if self.window < 2:
            raise UserError(f"Spike(window={self.window}): a deviation takes at least 2 steps")


@dataclass(frozen=True)
class Load:
    """The source of the initial parameters of a tower or an objective: `path` is whatever `mmjax.load` takes, a
    workdir, an exported folder, another project's, or a name such as `hf:google/siglip-base-patch16-224`.

    skip: regexes on parameter paths that stay as freshly initialised. A run that resumes ignores this.
    of: the part there, where that has another path than here: `towers.image` for a tower of frames that stands within
        another one, `{"towers.video.frame": Load(path, of="towers.image")}`.
    """

    path: str
    skip: tuple[str, ...] = ()
    of: str | None = None


def part_at(experiment: Any, path: str) -> Any:
    """The tower, fusion or objective at a path, `towers.image`, or what stands within it, `towers.video.frame`; None
    where there is none.
    """
    kind, name, *within = path.split(".")
    part = getattr(experiment, kind, {}).get(name)
    for attribute in within:
        part = getattr(part, attribute, None)
    return part


@runtime_checkable
class SplitReader(Protocol):
    """The methods that an experiment itself calls on its evaluators: all that inherit from `mmjax.evaluate.Evaluator`,
    which is above this folder, have them.
    """

    @property
    def split(self) -> str: ...
    @property
    def fit_split(self) -> str | None: ...
    def __call__(self, embedded: Any, embed_text: Any) -> dict[str, float]: ...


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result, and how it is logged, saved and evaluated.

    towers: an encoder for each modality; fusions: encoders over the tokens of several, by the names by which objectives
    ask for them (`mmjax.objectives.Fused`); objectives: by a name of one's own, which the logs use (none: it can be
    loaded and judged, not trained).
    weights: of the objectives in the loss, a number or a function of the step; 1 where none is given.
    batch_size: examples in a step, over all hosts and microbatches. steps: how many; the schedule ends there.
    microbatches: parts that a step's batch is encoded in, one after the other (the result stays exact, memory shrinks).
    evaluators: run after every `evaluate_every` steps and at the end; 0: at the end only.
    save_every, save_minutes: a checkpoint after so many steps, and, besides, after so many minutes (0: never).
    keep, keep_best, keep_every: of the checkpoints, the latest so many stay; the best by a metric (`Best`); and those
    of every so many steps (0: none).
    log_every: metrics are written after so many steps.
    init: the models that parts start from, {"towers.image": Load(path)}; the path alone, as a string, is allowed too.
    spike: the rule by which a step's loss is so high that its update is skipped (`Spike`); None: only losses that
    aren't finite are.
    most_bad_steps: the maximum number of consecutive skipped steps; one more raises BadStepsError.
    most_bad_examples: the maximum share of bad examples (broken, empty, ...) among about the last ten thousand.
    patience: seconds without a batch after which the data counts as hung, and the run ends so that it can be started
    again (0: never).
    ema: decay per step of an exponential moving average of the parameters, None for none.
    balance: how the objectives' weighted losses become one (`mmjax.optim`: `Uncertainty`, `Alternate`, `PCGrad`,
    `GradNorm`); None: they are added.

    Raises:
        UserError: a number or a name is invalid.
    """

    towers: Mapping[str, nn.Module]
    objectives: Mapping[str, nn.Module]
    data: Mixture
    optimizer: Optimizer
    batch_size: int
    steps: int
    weights: Mapping[str, Weight] = field(default_factory=dict)
    mesh: Mesh = field(default_factory=Mesh)
    microbatches: int = 1
    evaluators: Sequence[Any] = field(default_factory=list)
    evaluate_every: int = 0
    save_every: int = 1_000
    log_every: int = 10
    save_minutes: float = 0.0
    keep: int = 3
    keep_best: Best | None = None
    keep_every: int = 0
    init: Mapping[str, Load | str] = field(default_factory=dict)
    seed: int = 0
    ema: float | None = None
    spike: Spike | None = None
    most_bad_steps: int = 10
    most_bad_examples: float = 0.1
    patience: float = 600.0
    fusions: Mapping[str, nn.Module] = field(default_factory=dict)
    balance: nn.Module | None = None

    def __post_init__(self) -> None:
        if not self.towers and not self.objectives:
            raise UserError("an experiment needs towers, or an objective that needs none, but both are {}")
        encoders = [(f"towers.{name}", one) for name, one in self.towers.items()]
        encoders += [(f"fusions.{name}", one) for name, one in self.fusions.items()]
        for path, part in [*encoders, *((f"objectives.{name}", one) for name, one in self.objectives.items())]:
            for field_, dtype in _dtypes(path, part):
                if dtype not in get_args(DtypeName):
                    raise UserError(f"{field_}={dtype!r} is none of {', '.join(get_args(DtypeName))}")
        if not isinstance(self.save_minutes, int | float) or self.save_minutes < 0:
            raise UserError(f"save_minutes={self.save_minutes!r} must be a number of at least 0 (0: by steps alone)")
        if not isinstance(self.most_bad_examples, int | float) or not 0 <= self.most_bad_examples <= 1:
            raise UserError(
                f"most_bad_examples={self.most_bad_examples!r} must be a share, from 0 to 1 (1: any number)"
            )
        if not isinstance(self.patience, int | float) or self.patience < 0:
            raise UserError(f"patience={self.patience!r} must be a number of seconds, at least 0 (0: without end)")
        if self.spike is not None and not isinstance(self.spike, Spike):
            raise UserError(f"spike={self.spike!r} must be a Spike(deviations, window), or None")
        if self.keep_best is not None and not isinstance(self.keep_best, Best):
            raise UserError(f"keep_best={self.keep_best!r} must be a Best(split, metric, count), or None")
        for name, least in {
            "batch_size": 1,
            "steps": 1,
            "microbatches": 1,
            "evaluate_every": 0,
            "save_every": 1,
            "log_every": 1,
            "keep": 1,
            "keep_every": 0,
            "most_bad_steps": 0,
            "seed": 0,
        }.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"{name}={value!r} must be an int of at least {least}")
        if self.batch_size % self.microbatches:
            divisors = [n for n in range(1, self.batch_size + 1) if self.batch_size % n == 0]
            close = sorted(sorted(divisors, key=lambda n: abs(n - self.microbatches))[:4])
            raise UserError(
                f"microbatches={self.microbatches} must divide batch_size={self.batch_size}; near it: {close}"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"ema={self.ema!r} must lie between 0 and 1: the share of the average that a step keeps")
        for name, weight in self.weights.items():
            if name not in self.objectives:
                raise UserError(unknown("weights", name, self.objectives, "objectives"))
            if not callable(weight) and (not isinstance(weight, (int, float)) or weight < 0):
                raise UserError(f"weights.{name}={weight!r} must be a number of at least 0, or a function of the step")
        if self.balance is not None:
            if not isinstance(self.balance, LossBalance):
                raise UserError(
                    f"balance is a {type(self.balance).__name__}, and none: those of mmjax.optim are, such as "
                    "Uncertainty(), or it is None"
                )
            self.balance.check_objectives(tuple(self.objectives))
        if self.optimizer.warmup_steps >= self.steps:
            raise UserError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} must be less than steps={self.steps}: set "
                f"optimizer.warmup_steps={self.steps // 10}, say"
            )
        for evaluator in self.evaluators:
            if not isinstance(evaluator, SplitReader) or isinstance(evaluator, type):
                raise UserError(
                    f"{evaluator!r} is no evaluator: those of mmjax.evaluate are, such as Retrieval(), and those of a "
                    "class of one's own that inherits from mmjax.evaluate.Evaluator"
                )
        self._check_names()
        starts = [f"{kind}.{name}" for kind in ("towers", "fusions", "objectives") for name in getattr(self, kind)]
        for path, load in self.init.items():
            part = ".".join(path.split(".")[:2])
            if part not in starts:
                raise UserError(unknown("init", path, starts, "towers, fusions and objectives"))
            if part_at(self, path) is None:
                raise UserError(f"init: {part} has no part {path.removeprefix(part + '.')!r} within it")
            if not isinstance(load, Load | str):
                raise UserError(f'init={{"{path}": {load!r}}} must be a path, or Load(path, skip=..., of=...)')
        sized = {"towers": self.towers, "fusions": self.fusions, "objectives": self.objectives}
        sized |= {"data.transforms": self.data.transforms, "data.record_transforms": self.data.record_transforms}
        others = {"data.weights": self.data.weights, "optimizer": self.optimizer, "spike": self.spike, "ema": self.ema}
        others["balance"] = self.balance
        bounds.check_bounds(
            {**sized, "batch_size": self.batch_size, "steps": self.steps}, {**others, "weights": self.weights}
        )
        check_fit(self.towers, self.objectives, self.data, self._idle(), self.fusions, self.ema)

    def _check_names(self) -> None:
        """Checks everything that becomes a name of a file: of a parameter, a tokenizer, a picture, a folder of
        TensorBoard's.
        """
        for field_, names in (
            ("towers", self.towers),
            ("fusions", self.fusions),
            ("objectives", self.objectives),
            ("data.transforms", self.data.transforms),
        ):
            for name in names:
                plain(name, f"a key of {field_}")
        for place, evaluator in enumerate(self.evaluators):
            plain(evaluator.split, f"evaluators.{place}.split")
            if evaluator.fit_split is not None:
                plain(evaluator.fit_split, f"evaluators.{place}.fit_split")
        if self.keep_best is not None:
            plain(self.keep_best.split, "keep_best.split")

    def _idle(self) -> tuple[str, ...]:
        try:
            return idle(self.towers, self.objectives, self.optimizer.frozen)
        except re.error as error:
            raise UserError(f"optimizer.frozen={self.optimizer.frozen}: no regular expression: {error}") from None

    def keeping(self, evaluations: Callable[[int], Mapping[str, Mapping[str, float]]]) -> Keeping:
        """The policy by which checkpoints are kept, given the known evaluations of a step."""
        return Keeping(self.keep, self.keep_every, self.keep_best, evaluations)

    def pretrainer(self) -> Pretrainer:
        """The towers, fusions and objectives as the one module that is trained."""
        return Pretrainer(
            towers=self.towers,
            objectives=self.objectives,
            weights=self.weights,
            microbatches=self.microbatches,
            idle=self._idle(),
            fusions=self.fusions,
            balance=self.balance,
        )


def _dtypes(path: str, part: Any) -> Iterator[tuple[str, str]]:
    """What a part and its inner ones compute in, each by its path."""
    if isinstance(dtype := getattr(part, "dtype", None), str):
        yield f"{path}.dtype", dtype
    for name in ("blocks", "trunk", "decoder"):
        if (inner := getattr(part, name, None)) is not None:
            yield from _dtypes(f"{path}.{name}", inner)


def unscaled(config: fdl.Config) -> str | None:
    """A warning where a part computes in fp16, since no loss is scaled here; else None."""
    found = [f"{path}={value}" for path, value in paths(config) if path.endswith("dtype") and value == "float16"]
    if not found:
        return None
    return (
        f"warning: {', '.join(found)}: nothing scales the loss, so gradients below 6e-8 become 0 and those above 65504 "
        "infinite; bfloat16, as fast, has the range of float32"
    )
