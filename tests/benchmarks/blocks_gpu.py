"""Bytes that blocks of CLIP B/16's image tower move on an H100 beside their products, with each mechanism and without.

python -m tests.benchmarks.blocks_gpu --json experiments/records/blocks_gpu.json

Forward and backward pass of two blocks at batch 512 in bf16, with cuDNN's attention, compiled by CUDA's compiler on a
machine without a GPU (extra `plan-gpu`). Bytes are given in passes: one is all tokens read or written once in bf16, 155
MB. A step has twelve such blocks, and twelve of the text tower, which are a quarter as large. A row that stands in the
JSON is not made again.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.layers import activations, parameters, transformer
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.transformer import Transformer
from mmjax.train.plan.gpus import gpu_devices, hosts
from mmjax.train.plan.kernels import PRODUCTS
from mmjax.train.plan.schedule import read_schedule
from tests.benchmarks.machine import machine

BATCH, TOKENS, DEPTH = 512, 197, 2
BLOCKS = Blocks(width=768, depth=DEPTH, heads=12, remat=None, unroll=DEPTH, dtype="bfloat16", attention="cudnn")
DOTS = dataclasses.replace(BLOCKS, remat="dots")
PASS = BATCH * TOKENS * BLOCKS.width * 2  # bytes
TOPOLOGY = "h100:1"


@contextlib.contextmanager
def autodiff() -> Iterator[None]:
    """GELU as autodiff has it."""
    with mock.patch.dict(activations.ACTIVATIONS, gelu=partial(jax.nn.gelu, approximate=False)):
        yield


@contextlib.contextmanager
def odd() -> Iterator[None]:
    """No token of padding: 197 of them are padded at each attention."""
    with mock.patch.object(transformer, "spare_tokens", return_value=0):
        yield


@contextlib.contextmanager
def again() -> Iterator[None]:
    """Attention is computed again."""
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    with mock.patch.dict(parameters.REMAT_POLICIES, dots=policy):
        yield


VARIANTS: dict[str, tuple[Blocks, Any]] = {
    "stored": (BLOCKS, contextlib.nullcontext),
    "dots": (DOTS, contextlib.nullcontext),
    "stored, GELU by autodiff": (BLOCKS, autodiff),
    "dots, attention again": (DOTS, again),
    "stored, padded at each attention": (BLOCKS, odd),
    "dots, in a loop": (dataclasses.replace(DOTS, unroll=1), contextlib.nullcontext),
    "stored, in a loop": (dataclasses.replace(BLOCKS, unroll=1), contextlib.nullcontext),
    "stored, gelu_tanh": (dataclasses.replace(BLOCKS, activation="gelu_tanh"), contextlib.nullcontext),
    "stored, quick_gelu": (dataclasses.replace(BLOCKS, activation="quick_gelu"), contextlib.nullcontext),
}


def compiled(blocks: Blocks) -> Any:
    """Loss and gradient of the blocks, for a GPU that isn't there."""
    wanted = hosts(TOPOLOGY)
    assert wanted is not None
    device = gpu_devices(TOPOLOGY, wanted)[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model = Transformer(blocks, final_norm=False)

    def loss(params: Any, x: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(model.apply(params, x)).astype(jnp.float32) * weight.astype(jnp.float32))

    with jax.set_mesh(mesh):
        here = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        x = jax.ShapeDtypeStruct((BATCH, TOKENS, blocks.width), jnp.bfloat16, sharding=here)
        shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
        return jax.jit(jax.grad(loss, (0, 1))).lower(params, x, x).compile()


def moved(name: str) -> dict[str, Any]:
    """Passes that a block moves beside its products and in all, by class, and those that its temporaries take."""
    blocks, changed = VARIANTS[name]
    wanted = hosts(TOPOLOGY)
    assert wanted is not None
    began = time.process_time()
    with changed():
        program = compiled(blocks)
    kinds: Counter[str] = Counter()
    for each in read_schedule(program.as_text(), {"data": 1}, wanted.card).kernels:
        kinds[each.kind] += each.bytes
    passes = {kind: round(size / PASS / DEPTH, 1) for kind, size in kinds.items()}
    return {
        "variant": name,
        "beside_products": round(sum(size for kind, size in kinds.items() if kind != PRODUCTS) / PASS / DEPTH, 1),
        "temporaries": round(program.memory_analysis().temp_size_in_bytes / PASS / DEPTH, 1),
        "by_class": passes,
        "cpu_seconds_to_compile": round(time.process_time() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    path = parser.parse_args().json
    rows = json.loads(path.read_text())["rows"] if path and path.exists() else []
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.blocks_gpu",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "jax-cuda13-plugin", "flax")},
        "pass": PASS,
        "rows": rows,
    }
    for name in VARIANTS:
        if name not in {row["variant"] for row in rows}:
            rows.append(moved(name))
            print(json.dumps(rows[-1]), flush=True)
            if path:
                path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
