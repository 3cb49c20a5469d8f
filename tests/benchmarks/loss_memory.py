"""Memory of a chip for the contrastive loss alone, on pods: how it grows with the batch, and falls with the chips.

python -m tests.benchmarks.loss_memory --json loss_memory.json --picture loss_memory.png

Loss and gradient of N x 512 embeddings in fp32, softmax, compiled by the TPU's compiler for pods that aren't there: as
a ring, and dense where its N^2 matrix is likely to fit. Temporaries, beyond inputs and gradients.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.objectives.contrastive.objective import softmax_loss
from mmjax.objectives.contrastive.ring import ring_loss
from mmjax.objectives.contrastive.tile import Rows
from mmjax.runtime.mesh import Mesh, batch_sharding
from mmjax.train.plan.chips import pod
from tests.benchmarks.machine import machine

WIDTH = 512
PODS = {  # topology -> global batches
    "v5e:2x4": (8_192, 16_384, 32_768, 65_536, 131_072),
    "v5e:8x8": (32_768, 65_536, 131_072, 262_144, 1_048_576),
    "v5e:16x16": (32_768, 131_072, 262_144, 524_288, 1_048_576),
    "v4:8x8x16": (131_072, 524_288, 1_048_576),
    "v5p:16x16x24": (393_216, 786_432, 1_572_864, 3_145_728),
}


def temporaries(topology: str, n: int, dense: bool) -> int | None:
    """Bytes of a chip; None where they are more than it has."""
    mesh = Mesh().build(pod(topology).devices)
    rows, one = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())

    def value(a: jax.Array, b: jax.Array, scale: jax.Array) -> jax.Array:
        valid = jnp.ones(n, bool)
        if dense:
            return softmax_loss(a, b, scale, valid, valid)[0]
        group = jnp.arange(n, dtype=jnp.int32)
        return ring_loss(Rows(a, valid, group), Rows(b, valid, group), scale)[0]

    side = jax.ShapeDtypeStruct((n, WIDTH), jnp.float32, sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=one)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(value, (0, 1, 2)), out_shardings=(one, (rows, rows, one)))
        try:
            analysis: Any = step.lower(side, side, scale).compile().memory_analysis()
            return analysis.temp_size_in_bytes
        except Exception as error:  # the compiler's own class has no public name
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, topology in enumerate(PODS):
        mine = [run for run in runs if run["topology"] == topology]
        chips = mine[0]["chips"]
        sizes = [run["batch"] for run in mine]
        axes.plot(sizes, [run["ring"] / 1e6 for run in mine], "o-", color=f"C{place}", label=f"{topology} ({chips:,})")
        dense = [run for run in mine if run.get("dense")]
        axes.plot([r["batch"] for r in dense], [r["dense"] / 1e6 for r in dense], "x:", color=f"C{place}")
    axes.set(xscale="log", yscale="log", xlabel="global batch", ylabel="MB of temporaries a chip")
    axes.set_title("The contrastive loss: round the ring (lines), dense (dotted)")
    axes.legend(title="pod (chips)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    runs = []
    for topology, batches in PODS.items():
        chips = pod(topology).chips
        for n in batches:
            run: dict[str, Any] = {"topology": topology, "chips": chips, "batch": n}
            run["ring"] = temporaries(topology, n, dense=False)
            run["dense"] = temporaries(topology, n, dense=True)
            runs.append(run)
            print(json.dumps(run), flush=True)
    record = {
        "command": "python -m tests.benchmarks.loss_memory",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        "of": f"loss and gradient of N x {WIDTH} fp32, softmax; bytes of temporaries a chip; null: does not fit",
        "runs": runs,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.picture:
        draw(runs, arguments.picture)


if __name__ == "__main__":
    main()
