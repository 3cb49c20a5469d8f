"""Plans an experiment on a pod that isn't rented yet: whether it fits, how fast it will be, and what it will take.

The real train step is compiled by the TPU's or CUDA's own compiler, which runs on any machine. Bytes and collectives
are the compiled program's, FLOPs the traced function's. Seconds are a roofline's (`Seconds`): a promise they are not.
"""

import copy
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.text import Text

from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build, children, paths
from mmjax.experiment.overrides import override
from mmjax.models.layers.attentions import Choice, choices
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import output
from mmjax.runtime.mesh import batch_sharding
from mmjax.train.plan.chips import Pod, pod
from mmjax.train.plan.collectives import Collective
from mmjax.train.plan.compiled_program import read_program
from mmjax.train.plan.flops import count
from mmjax.train.plan.input_cost import reading
from mmjax.train.plan.kernels import CLASSES
from mmjax.train.plan.picture import draw_plans
from mmjax.train.plan.result import Memory, Plan, Remedy, Seconds
from mmjax.train.plan.schedule import Kernels, read_schedule
from mmjax.train.plan.terminal import report, scaling
from mmjax.train.setup import Setup

MOST_TRIES = 2  # compilations tried for one kind of remedy


def plan(
    config: fdl.Config,
    topology: str,
    *,
    slices: int = 1,
    name: str = "",
    remedies: bool = True,
    model_flops: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Compiles the experiment's train step for the pod `topology` (`v5e:16x16`, `h100:8`, `cpu:8`), and counts.

    remedies: where it doesn't fit, tries changes that would make it fit; each try compiles again. model_flops: where
    they are known from a plan of the same model. say: gets messages of progress.

    Raises:
        UserError: an unknown topology, no compiler for it, or a batch or a mesh that doesn't fit on its devices.
    """
    where = pod(topology, slices)
    experiment: Experiment = build(config)
    say(f"compiling for {topology}" + (f" x {slices} slices" if slices > 1 else ""))
    found = _compiled(experiment, where, say)
    result = Plan(
        experiment=name,
        topology=topology,
        slices=slices,
        chips=where.chips,
        devices=len(where.devices),
        hosts=where.hosts,
        mesh={axis: int(size) for axis, size in found.mesh.shape.items()},
        batch_size=experiment.batch_size,
        microbatches=experiment.microbatches,
        steps=experiment.steps,
        fits=found.fits,
        memory=found.memory,
        flops=found.flops,
        model_flops=_model_flops(config, where) if model_flops is None else model_flops,
        attention=list(found.attention),
        reading=reading(experiment.data.transforms, experiment.data.record_transforms),
        peak=where.chip.flops,
        host_cores=where.chip.host_cores,
    )
    if found.text is not None and where.card is not None:
        schedule = read_schedule(found.text, result.mesh, where.card, where.hosts)
        network = sum(c.seconds or 0.0 for c in schedule.collectives)
        seconds = Seconds(schedule.products, schedule.memory, network, schedule.exposed)
        result = dataclasses.replace(
            result, collectives=schedule.collectives, kernels=schedule.kernels, seconds=seconds, scheduled=True
        )
    elif found.text is not None:
        program = read_program(found.text, result.mesh, slices)
        seconds = Seconds(
            products=max(found.flops / result.devices / where.chip.flops, program.product_bytes / where.chip.bandwidth),
            memory=program.other_bytes / where.chip.bandwidth,
            network=sum(_network_seconds(c, where) for c in program.collectives),
        )
        kernels = None
        if where.refuses:  # a CPU's program is read by other rules
            moved = {kind: program.kernels[kind] for kind in CLASSES if kind in program.kernels}
            kernels = [Kernels(kind, n, int(size), 0, size / where.chip.bandwidth) for kind, (n, size) in moved.items()]
        result = dataclasses.replace(result, collectives=program.collectives, kernels=kernels, seconds=seconds)
    if not found.fits and remedies:
        result = dataclasses.replace(result, remedies=list(_remedies(config, where, found.memory, say)))
    return result


def plan_topologies(
    config: fdl.Config,
    topologies: Sequence[str],
    *,
    slices: int = 1,
    name: str = "",
    remedies: bool = True,
    json_path: str | Path | None = None,
    picture: str | Path | None = None,
    console: Console | None = None,
) -> list[Plan]:
    """Plans an experiment for each topology, and prints it; the numbers go to `json_path`, a PNG to `picture`.

    Raises:
        UserError: as `plan`; or a file that can't be written.
    """
    console = console or Console(highlight=False)
    for path in (json_path, picture):
        output.check_writable(path)
    use_compilation_cache()
    plans: list[Plan] = []
    with console.status("") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(Text(text), soft_wrap=True)

        for topology in topologies:
            plans.append(plan(config, topology, slices=slices, name=name, remedies=remedies, say=say))
            console.print(report(plans[-1]))
    if len(plans) > 1:
        console.print(scaling(plans))
    if json_path is not None:
        text = json.dumps([each.numbers() for each in plans], indent=1)
        output.write(json_path, text + "\n")
    if picture is not None:
        draw_plans(plans, picture)
        console.print(Text(f"drawn: {picture}"), soft_wrap=True)
    return plans


@dataclass(frozen=True)
class _Compiled:
    mesh: jax.sharding.Mesh
    memory: Memory
    flops: int
    fits: bool
    text: str | None
    attention: Sequence[Choice] = ()


def _compiled(experiment: Experiment, where: Pod, say: Callable[[str], None]) -> _Compiled:
    with choices() as attention:
        mesh, state, batch, traced = _traced(experiment, where)
    held = {
        "parameters": _held(state.params),
        "optimizer": _held(state.opt_state),
        "average": _held(state.ema),
        "batch": _held(batch),
        "other": _held((state.model_state, state.guard, state.step)),
        "limit": int(where.chip.memory),
    }
    flops = count(traced.jaxpr)
    try:
        compiled = traced.lower().compile()
    except Exception as error:  # the compiler's own class has no public name
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed, limit = _exhausted(str(error))
        memory = Memory(**{**held, "limit": limit or held["limit"]}, temporaries=needed, code=0)
        return _Compiled(mesh, memory, flops, False, None, attention)
    sizes = compiled.memory_analysis()
    held["other"] += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    memory = Memory(**held, temporaries=sizes.temp_size_in_bytes, code=sizes.generated_code_size_in_bytes)
    fits = where.refuses or memory.needed <= memory.limit
    try:
        text = compiled.as_text()
    except Exception as error:  # see above
        reason = str(error).splitlines()[0]
        say(f'no times and collectives: jax can\'t read this compiler\'s programs ({reason}); pip install "jax[tpu]" '
            "has the one that fits")  # fmt: skip
        text = None
    return _Compiled(mesh, memory, flops, fits, text, attention)


def _traced(experiment: Experiment, where: Pod) -> tuple[jax.sharding.Mesh, Any, Any, Any]:
    """The train step, traced as `train` would run it on the pod; nothing is computed."""
    setup = Setup.on(experiment, where.devices)
    with jax.set_mesh(setup.mesh):
        state = setup.abstract_state()
        batch = {
            name: jax.ShapeDtypeStruct(
                x.shape, jax.dtypes.canonicalize_dtype(x.dtype), sharding=batch_sharding(setup.mesh)
            )
            for name, x in setup.spec.items()
        }
        return setup.mesh, state, batch, setup.train_step(state).trace(state, batch)


def _held(tree: Any) -> int:
    """Bytes of a tree's shards on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize for x in leaves)


def _model_flops(config: fdl.Config, where: Pod) -> int:
    """The step's FLOPs with nothing computed twice: no remat, no microbatches, no kernel that makes logits again."""
    plain = copy.deepcopy(config)
    for path, part in recomputing(config):
        override(plain, f"{path}.remat=None")
        if "attention" in children(part):
            override(plain, f"{path}.attention=plain")
    override(plain, "microbatches=1")
    return count(_traced(build(plain), where)[3].jaxpr)


def _remats(config: fdl.Config) -> dict[str, Any]:
    """The path of every field `remat`, and what it says."""
    return {f"{path}.remat": part.remat for path, part in recomputing(config)}


def recomputing(config: fdl.Config) -> list[tuple[str, Any]]:
    """Everything that can recompute, each once, by its path."""
    found: dict[int, tuple[str, Any]] = {}
    parts = dict(paths(config))
    for path, part in parts.items():
        decided = path.endswith(".blocks") and parts.get(f"{path.removesuffix('blocks')}trunk") is not None
        if isinstance(part, fdl.Config) and "remat" in children(part) and not decided:
            found.setdefault(id(part), (path, part))
    return list(found.values())


def _network_seconds(collective: Collective, where: Pod) -> float:
    """Seconds of a collective. A permutation uses one link; all others go round a ring of the torus, both ways; slices
    share a slow network.
    """
    if collective.slow:
        return collective.bytes / where.chip.network
    links = 1 if collective.kind == "collective-permute" else 2
    return collective.bytes / (links * where.chip.link)


def _exhausted(message: str) -> tuple[int, int]:
    """Bytes needed and available, from the compiler's message of insufficient memory; 0 where it has no numbers."""
    sizes = [float(n) * {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}[unit]
             for n, unit in re.findall(r"([\d.]+)([KMGT])\b", message)]  # fmt: skip
    needed, limit = ([int(size) for size in sizes] + [0, 0])[:2]
    return needed, limit


def _remedies(config: fdl.Config, where: Pod, memory: Memory, say: Callable[[str], None]) -> Iterator[Remedy]:
    """Compiles, for each kind of change, the smallest that is likely to make the step fit; sizes are then the
    compiler's.

    Temporaries shrink about in proportion to the number of microbatches, and with the batch; the state shrinks with
    `fsdp`.
    """
    experiment: Experiment = build(config)
    held = memory.needed - memory.temporaries
    room = memory.limit - held
    factor = memory.temporaries / room if room > 0 else math.inf
    lists: list[list[tuple[str, ...]]] = []
    if room > 0:
        lists.append([(f"microbatches={m}",) for m in _powers(factor, experiment.microbatches)])
        lists.append([(f"batch_size={experiment.batch_size // n}",) for n in _powers(factor, 1)])
    if recomputable := [path for path, remat in _remats(config).items() if remat != "full"]:
        lists.append([tuple(f"{path}=full" for path in recomputable)])
    fsdp = experiment.mesh.fsdp
    if fsdp > 0 and experiment.mesh.data == -1 and held > memory.limit / 10:
        wider = [f for f in (2 * fsdp, 4 * fsdp, 8 * fsdp) if len(where.devices) % (f * experiment.mesh.tensor) == 0]
        lists.append([(f"mesh.fsdp={f}",) for f in wider])
    for tries in lists:
        for overrides in tries[:MOST_TRIES]:
            changed = copy.deepcopy(config)
            for assignment in overrides:
                override(changed, assignment)
            say(f"does it fit with {' '.join(overrides)}?")
            try:
                found = _compiled(build(changed), where, say)
            except UserError:  # the mesh doesn't divide this batch any more
                continue
            yield Remedy(overrides, found.fits, found.memory.needed)
            if found.fits:
                break


def _powers(factor: float, start: int) -> list[int]:
    """Multiples of `start` by powers of two, from the first that is at least `factor` times it."""
    first = 2 ** max(1, math.ceil(math.log2(factor)))
    return [start * first * more for more in (1, 2)]
