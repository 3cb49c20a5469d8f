"""Time and memory of contrastive losses with their gradients: tiles, the dense matrix, and open_clip's losses.

python -m tests.benchmarks.contrastive --json experiments/records/contrastive.json
python -m tests.benchmarks.contrastive --sizes 4096 8192
python -m tests.benchmarks.contrastive --most 70 --json experiments/records/contrastive_gpu.json    # on a GPU
python -m tests.benchmarks.contrastive --peers inf_cl --sizes 32768 262144                          # on a GPU

N x 512 embeddings in fp32, on the CPU or on the GPU that is there (products in fp32 too, not in TF32). All
implementations of a size run in turn, several times over; figures are medians, with the machine's load when they were
done: beside other work only the CPU seconds mean something. Memory: of ours the compiler's (temporaries, beyond inputs
and gradients); of open_clip's the growth of the process's largest memory, in a process of its own (on a GPU, torch's
count of it). open_clip's losses need `pip install torch==2.13.0` and then `pip install -e ".[bench]"`. Inf-CL's (`pip
install inf_cl`; Cheng et al. 2024, arXiv:2410.17243) is softmax alone, by kernels for a GPU, which round products to
TF32. What would take more than 12 GB (`--most`) is left out, by the N^2 matrices that it makes. A size that stands in
the JSON is not repeated.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.objectives.contrastive.objective import sigmoid_loss, softmax_loss
from mmjax.objectives.contrastive.ring import ring_loss
from mmjax.objectives.contrastive.tile import Rows
from tests.benchmarks.machine import machine

SIZES = (4_096, 8_192, 16_384, 32_768, 65_536, 131_072)
WIDTH, SCALE, BIAS = 512, 10.0, -10.0
MOST = 12e9  # bytes
MATRICES = {"dense softmax": 5, "dense sigmoid": 5, "open_clip softmax": 4.1, "open_clip sigmoid": 5}  # N^2 of fp32
LONG = 15.0  # seconds: what takes longer runs once
REPEATS = 3


def vectors(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of two sides, a row of one near the same row of the other."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, WIDTH), np.float32)
    b = a + rng.standard_normal((n, WIDTH), np.float32)
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))


def ours(n: int, loss: str, method: str) -> tuple[Callable[[], float], int]:
    """A function that computes loss and gradient once and gives the loss; and the temporaries that it takes."""
    valid, group = jnp.ones(n, bool), jnp.arange(n, dtype=jnp.int32)

    def value(a: jax.Array, b: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        if method == "tiles":
            sides = Rows(a, valid, group), Rows(b, valid, group)
            return ring_loss(*sides, scale, None if loss == "softmax" else bias)[0]
        if loss == "softmax":
            return softmax_loss(a, b, scale, valid, valid)[0]
        return sigmoid_loss(a, b, scale, bias, valid, valid)[0]

    arguments = *map(jnp.asarray, vectors(n)), jnp.float32(SCALE), jnp.float32(BIAS)
    compiled = jax.jit(jax.value_and_grad(value, (0, 1, 2, 3))).lower(*arguments).compile()
    analysis: Any = compiled.memory_analysis()
    return lambda: float(jax.block_until_ready(compiled(*arguments))[0]), analysis.temp_size_in_bytes


def open_clips(n: int, loss: str) -> Callable[[], float]:
    import torch  # pyright: ignore[reportMissingImports]

    # The file alone: the package imports torchvision, of which there is no build that fits every torch.
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "loss.py"
    losses: Any = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("losses", file))  # type: ignore[arg-type]
    spec.loader.exec_module(losses)  # type: ignore[union-attr]
    made = losses.ClipLoss() if loss == "softmax" else losses.SigLipLoss()
    where = "cuda" if torch.cuda.is_available() else "cpu"
    sides = [torch.tensor(x, requires_grad=True, device=where) for x in vectors(n)]
    scale, bias = (torch.tensor(x, requires_grad=True, device=where) for x in (SCALE, BIAS))

    def once() -> float:
        for leaf in (*sides, scale, bias):
            leaf.grad = None
        value = made(*sides, scale) if loss == "softmax" else made(*sides, scale, bias)
        value.backward()
        return float(value)

    return once


def inf_cls(n: int, loss: str) -> Callable[[], float]:
    """The softmax loss of Inf-CL, the mean of both directions."""
    import torch  # pyright: ignore[reportMissingImports]
    from inf_cl import cal_inf_loss  # pyright: ignore[reportMissingImports]

    assert loss == "softmax"
    a, b = (torch.tensor(x, requires_grad=True, device="cuda") for x in vectors(n))
    scale = torch.tensor(SCALE, requires_grad=True, device="cuda")

    def once() -> float:
        for leaf in (a, b, scale):
            leaf.grad = None
        value = (cal_inf_loss(a, b, scale=scale) + cal_inf_loss(b, a, scale=scale)) / 2
        value.backward()
        return float(value)

    return once


PEERS: dict[str, Callable[[int, str], Callable[[], float]]] = {"open_clip": open_clips, "inf_cl": inf_cls}


def grown(by: str, n: int, loss: str) -> int:
    """Bytes by which a fresh process's largest memory grows with one loss and gradient of a peer."""
    program = f"""
import torch
from tests.benchmarks.contrastive import PEERS
from tests.benchmarks import machine
most_memory = torch.cuda.max_memory_allocated if torch.cuda.is_available() else machine.most_memory
PEERS[{by!r}](64, {loss!r})()
once = PEERS[{by!r}]({n}, {loss!r})
before = most_memory()
once()
print(most_memory() - before)
"""
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def fits(name: str, n: int, most: float = MOST) -> bool:
    """Whether an implementation's matrices stay below `most` bytes."""
    return MATRICES.get(name, 0) * 4 * n * n <= most


def seconds(function: Callable[[], float]) -> tuple[float, float, float]:
    """Wall and CPU seconds of one call, and its result."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    result = function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, result


def reason(peer: str) -> str | None:
    """Why a peer can't be measured here; None where it can."""
    missing = [name for name in ("torch", peer) if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    return "it needs a GPU" if peer == "inf_cl" and jax.default_backend() != "gpu" else None


def measure(n: int, loss: str, peers: Sequence[str], most: float = MOST) -> list[dict[str, Any]]:
    """All implementations that fit, in turn."""
    functions: dict[str, Callable[[], float]] = {}
    memory: dict[str, int] = {}
    for method in ("tiles", "dense"):
        if fits(f"{method} {loss}", n, most):
            functions[method], memory[method] = ours(n, loss, method)
    for peer in peers:
        if fits(f"{peer} {loss}", n, most) and (peer, loss) != ("inf_cl", "sigmoid"):
            functions[peer], memory[peer] = PEERS[peer](n, loss), grown(peer, n, loss)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [seconds(f)] for name, f in functions.items()}
    for _ in range(REPEATS):
        for name, function in functions.items():
            if taken[name][0][0] < LONG:
                taken[name].append(seconds(function))
    rows = []
    for name, runs in taken.items():
        timed = runs[1:] or runs  # the first one of several warms up
        wall, cpu = (statistics.median(run[i] for run in timed) for i in (0, 1))
        rounding = 1e-3 if name == "inf_cl" else 1e-4  # TF32 has 10 bits
        assert np.isclose(runs[0][2], taken["tiles"][0][2], rtol=rounding), (name, runs[0][2], taken["tiles"][0][2])
        row = {"size": n, "loss": loss, "by": name, "seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
        row |= {"runs": len(timed), "load": round(os.getloadavg()[0], 1)}
        rows.append(row | {"bytes": memory[name], "value": runs[0][2]})
    for row in rows:
        row["by_dense"] = next((round(row["seconds"] / r["seconds"], 2) for r in rows if r["by"] == "dense"), None)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--most", type=float, default=MOST / 1e9, metavar="GB", help="default: %(default)g")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=("open_clip",))
    arguments = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    versions = {"jax": jax.__version__}
    for package in ("torch", "open_clip_torch", "inf_cl"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    peers = [peer for peer in arguments.peers if reason(peer) is None]
    for peer in arguments.peers:
        if peer not in peers:
            print(f"no figures of {peer}: {reason(peer)} (see --help)")
    old = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    record = {
        "command": " ".join(["python -m tests.benchmarks.contrastive", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine() | {"device": jax.devices()[0].device_kind},
        "versions": versions,
        "left_out": f"what takes more than {arguments.most:g} GB",
        "runs": old.get("runs", []),
    }
    done = {(row["size"], row["loss"]) for row in record["runs"]}
    for n, loss in itertools.product(arguments.sizes, ("softmax", "sigmoid")):
        if (n, loss) not in done:
            record["runs"] += (rows := measure(n, loss, peers, arguments.most * 1e9))
            for row in rows:
                print(json.dumps(row), flush=True)
            if arguments.json:  # as far as it has come: the last sizes take minutes
                arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
