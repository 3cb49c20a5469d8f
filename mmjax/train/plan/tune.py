"""Tunes a run for a pod: compiles it with other meshes, remat, loops and microbatches, and finds the fastest that fits.

One knob is turned at a time, from the best setting so far, until none makes the step faster: the whole product of all
knobs would be hundreds of compilations of a minute each. A setting that doesn't fit is tried again with more
microbatches, so that a remat which is faster but larger isn't lost.
"""

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
from rich.console import Console
from rich.text import Text

from mmjax.errors import UserError
from mmjax.experiment.graph import children, paths
from mmjax.experiment.overrides import override
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import output
from mmjax.train.plan.plan import plan, recomputing
from mmjax.train.plan.result import Trial
from mmjax.train.plan.terminal import trial_line, tuned

MOST_COMPILED = 16  # unless told otherwise: a quarter of an hour or so
MOST_MICROBATCHES = 64  # with which a setting that doesn't fit is tried

Setting = tuple[str, ...]  # overrides


def meshes(config: fdl.Config, devices: int) -> Iterator[Setting]:
    """`fsdp` and `tensor` at 1, half and twice what they are, `data` taking the other devices."""
    now = {axis: getattr(config.mesh, axis) for axis in ("fsdp", "tensor")}
    for axis, size in now.items():
        if size == -1:  # the experiment has it take what `data` leaves
            continue
        for other in sorted({1, size // 2, 2 * size} - {0, size}):
            if devices % (other * max(1, *(n for name, n in now.items() if name != axis))) == 0:
                yield "mesh.data=-1", f"mesh.{axis}={other}"


def microbatches(config: fdl.Config, devices: int) -> Iterator[Setting]:
    """Half and twice as many."""
    for count in (config.microbatches // 2, 2 * config.microbatches):
        if count:
            yield (f"microbatches={count}",)


def of_blocks(field: str, *values: Any) -> Callable[[fdl.Config, int], Iterator[Setting]]:
    """Each of `values` for this field of everything that can recompute, where it has such a field."""

    def settings(config: fdl.Config, devices: int) -> Iterator[Setting]:
        having = [path for path, part in recomputing(config) if field in children(part)]
        if having:
            yield from (tuple(f"{path}.{field}={value}" for path in having) for value in values)

    return settings


def loops(config: fdl.Config, devices: int) -> Iterator[Setting]:
    """A loop over the blocks of each part, and none."""
    having = [(path, part) for path, part in recomputing(config) if "unroll" in children(part)]
    if having:
        yield tuple(f"{path}.unroll=1" for path, _ in having)
        yield tuple(f"{path}.unroll={max(1, part.depth)}" for path, part in having)


# What is turned, in this order. A knob is a function of the experiment and the number of devices.
KNOBS: Mapping[str, Callable[[fdl.Config, int], Iterable[Setting]]] = {
    "remat": of_blocks("remat", None, "dots", "full"),
    "unroll": loops,
    "mesh": meshes,
    "microbatches": microbatches,
}


def tune(
    config: fdl.Config,
    topology: str,
    *,
    slices: int = 1,
    name: str = "",
    most: int = MOST_COMPILED,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Compiles the experiment with other settings, at most `most` in all, the first of which is its own.

    say: gets messages of progress. tell: gets each trial as it ends; what it was told is what is left of a tuning that
    is interrupted. A setting whose compilation fails is a trial without a plan.

    Raises:
        UserError: the experiment's own setting can't be compiled; or `most` isn't positive.
    """
    if most < 1:
        raise UserError(f"--tries {most}: the number of settings to compile must be at least 1")
    trials: dict[frozenset[tuple[str, str]], Trial] = {}

    def attempt(setting: Setting) -> Trial | None:
        changed = _with(config, setting)
        key = _differences(config, changed)
        if key in trials or len(trials) == most:
            return None
        say(f"compiling {len(trials) + 1} of at most {most}: {' '.join(setting) or 'as it is'}")
        began = time.perf_counter()
        flops = next((trial.plan.model_flops for trial in trials.values() if trial.plan is not None), None)
        try:
            made = plan(changed, topology, slices=slices, name=name, remedies=False, model_flops=flops, say=say)
            error = ""
        except Exception as problem:  # a mesh that doesn't divide the batch, or whatever the compiler doesn't like
            if not trials:
                raise
            made, error = None, str(problem).strip().partition("\n")[0] or type(problem).__name__
        overrides = tuple(f"{path}={value}" for path, value in sorted(key))
        trials[key] = trial = Trial(overrides, made, error, time.perf_counter() - began)
        tell(trial)
        return trial

    def fitting(setting: Setting) -> Trial | None:
        """The trial of a setting, or else of it with as many microbatches as its temporaries ask for."""
        trial = attempt(setting)
        if trial is None or trial.plan is None or trial.plan.fits:
            return trial
        memory = trial.plan.memory
        room = memory.limit - (memory.needed - memory.temporaries)
        count = trial.plan.microbatches
        while count < MOST_MICROBATCHES and room > 0 and memory.temporaries * trial.plan.microbatches / count > room:
            count *= 2
        more = None if room <= 0 else attempt((*setting, f"microbatches={max(count, 2 * trial.plan.microbatches)}"))
        return trial if more is None or more.plan is None else more

    best = fitting(())
    own = next(iter(trials.values())).plan
    assert best is not None
    assert own is not None
    turned = True
    while turned and len(trials) < most:
        turned = False
        for knob in KNOBS.values():
            here = best
            for setting in knob(_with(config, here.setting), own.devices):
                trial = fitting((*here.setting, *setting))
                if trial is not None and trial.faster(best):
                    best, turned = trial, True
    return list(trials.values())


def tune_topologies(
    config: fdl.Config,
    topologies: Sequence[str],
    *,
    slices: int = 1,
    name: str = "",
    given: Sequence[str] = (),
    most: int = MOST_COMPILED,
    json_path: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, list[Trial]]:
    """Tunes an experiment for each topology, and prints each setting as it is compiled and then all, fastest first.

    given: the overrides that the experiment has already; they stand in the command that is printed for the fastest.

    An interrupt (Ctrl-C) ends it; what was compiled until then is printed, and goes to `json_path` like the rest.

    Raises:
        UserError: as `tune`; or a file that can't be written.
    """
    console = console or Console(highlight=False)
    output.check_writable(json_path)
    use_compilation_cache()
    found: dict[str, list[Trial]] = {}
    try:
        for topology in topologies:
            trials = found[topology] = []

            def tell(trial: Trial, trials: list[Trial] = trials) -> None:
                trials.append(trial)
                console.print(trial_line(trial), soft_wrap=True)

            with console.status("") as status:
                tune(config, topology, slices=slices, name=name, most=most, say=status.update, tell=tell)
    except KeyboardInterrupt:
        console.print("interrupted; compiled until then:", style="yellow")
    for topology, trials in found.items():
        console.print(tuned(f"{name} on {topology}", trials))
        if fitting := [trial for trial in trials if trial.seconds is not None]:
            best = min(fitting, key=lambda trial: trial.seconds or 0.0)
            console.print(Text(" ".join(["mmjax train", name, *given, *best.setting, "--workdir ..."])), soft_wrap=True)
    if json_path is not None:
        numbers = {topology: [trial.numbers() for trial in trials] for topology, trials in found.items()}
        output.write(json_path, json.dumps(numbers, indent=1) + "\n")
    return found


def _with(config: fdl.Config, setting: Setting) -> fdl.Config:
    changed = copy.deepcopy(config)
    for assignment in setting:
        override(changed, assignment)
    return changed


def _differences(config: fdl.Config, changed: fdl.Config) -> frozenset[tuple[str, str]]:
    """The paths at which a setting differs from the experiment's own, with its values."""
    own = dict(paths(config))
    leaves = {path: value for path, value in paths(changed) if not children(value)}
    return frozenset((path, str(value)) for path, value in leaves.items() if value != own.get(path))
