"""Does a deeper tower cost more to trace and compile? It should not: the block stands once in the program.

python -m tests.benchmarks.depth --json experiments/records/depth.json
"""

import argparse
import datetime
import json
import time
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.vit import ViT
from tests.benchmarks.machine import machine

DEPTHS = (4, 24)


def measure(depth: int) -> dict[str, Any]:
    """Seconds to trace and lower, and to compile, the gradient of a ViT of that depth; and how long the program is."""
    tower = ViT(patch=16, size=64, blocks=Blocks(width=128, depth=depth, heads=4, remat="dots"), pooling="mean")
    pictures = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.uint8)
    params = jax.eval_shape(tower.init, jax.random.key(0), pictures)
    began = time.perf_counter()
    lowered = jax.jit(jax.grad(lambda params, x: cast(jax.Array, tower.apply(params, x)).sum())).lower(params, pictures)
    traced = time.perf_counter()
    text = lowered.as_text()
    lowered.compile()
    return {
        "depth": depth,
        "trace_and_lower_seconds": round(traced - began, 2),
        "compile_seconds": round(time.perf_counter() - traced, 2),
        "matrix_products": text.count("stablehlo.dot_general"),
        "lines_of_stablehlo": text.count("\n"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    path = parser.parse_args().json
    jax.config.update("jax_enable_compilation_cache", False)
    measure(1)  # imports and first uses
    record = {
        "command": "python -m tests.benchmarks.depth",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "jax": jax.__version__,
        "runs": [measure(depth) for depth in DEPTHS],
    }
    print(json.dumps(record, indent=1))
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
