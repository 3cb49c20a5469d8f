"""Parts of `tests.gpu.campaign`, each a process: python -m tests.gpu.campaign_parts steps|trace SIZE SIDE...

Figures are lines of their own, each a JSON object.
"""

import json
import os
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.step import flops_of, judged, measure
from tests.benchmarks.step_sides import make, size_of, traced

ROUNDS, TRACED = 5, 3  # steps that are timed, and that are traced


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def steps(size: str, sides: list[str]) -> None:
    """Times each side's step, one side after another; a row for each, as `tests.benchmarks.step` has them."""
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as beside:  # counting takes as long as a side takes to compile
        known = beside.submit(counted, size)
        for side in sides:
            rows += measure(size, [side], ROUNDS, apart=True)
            judged(rows, size, known.result())
            say(rows[-1])


def counted(size: str) -> dict[str, Any]:
    """`flops_of`, counted once for all parts of a campaign, which share a folder of compiled programs."""
    path = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", tempfile.gettempdir())) / f"flops of {size}.json"
    if not path.exists():
        known = flops_of(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    return json.loads(path.read_text())


def trace(size: str, side: str) -> None:
    """Traces steps of one of mmjax's sides; a row for each class of kernels, with milliseconds of a step."""
    import jax

    from mmjax.train.plan.kernels import CLASSES

    by, _, how = side.partition(" ")
    if by != "mmjax":
        raise SystemExit(f"Error: only a side of mmjax can be traced, not {side!r}")
    text = traced(size_of(size), how).lower().compile().as_text()
    made = make(side, size_of(size))
    made.step()  # warms up
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(TRACED):
                made.step()
        (file,) = Path(folder).rglob("*.xplane.pb")
        events = device_events(file.read_bytes())
    seconds = seconds_by_class(events, text)
    kinds = [*CLASSES, *(kind for kind in seconds if kind not in CLASSES)]
    for kind in (kind for kind in kinds if kind in seconds):
        say({"size": size, "by": side, "kind": kind, "ms": round(1e3 * seconds[kind] / TRACED, 3)})


def device_events(profile: bytes) -> list[tuple[str, float]]:
    """The operations that a profile (XPlane) saw devices run: the instruction of the compiled program, and seconds.

    A kernel of a command buffer has no instruction; its own name stands for it.
    """
    import jax

    data = jax.profiler.ProfileData.from_serialized_xspace(profile)
    planes = list(data.planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    found = []
    for plane in gpus or planes:
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):  # the others sum these up
                continue
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is not None or gpus:
                    found.append((str(operation or event.name), event.duration_ns / 1e9))
    return found


def seconds_by_class(events: list[tuple[str, float]], text: str) -> dict[str, float]:
    """Sums seconds by the class that the planner gives to an instruction of the program `text`; what the program
    doesn't name is `not in the program`, what it counts as no kernel `no kernel`."""
    from mmjax.train.plan.hlo import parse_program
    from mmjax.train.plan.kernels import kernel

    computations, _ = parse_program(text)
    where = {name: (each, around) for around in computations.values() for name, each in around.items()}
    seconds: dict[str, float] = defaultdict(float)
    for name, taken in events:
        if name not in where:
            seconds["not in the program"] += taken
            continue
        found = kernel(*where[name], computations)
        seconds["no kernel" if found is None else found.kind] += taken
    return dict(seconds)


def main(what: str, size: str, *sides: str) -> None:
    if what == "steps":
        steps(size, list(sides))
    elif what == "trace":
        trace(size, *sides)
    else:
        raise SystemExit(f"Error: there is no part {what!r}; there are steps and trace")


if __name__ == "__main__":
    main(*sys.argv[1:])
