"""What does attention move through a TPU's memory, plain and by kernels? Counts it in compiled programs, without a TPU.

python -m tests.benchmarks.tpu_attention --json experiments/records/tpu_attention.json

The gradient of one attention of ViT-B (12 heads of 64, its four projections, bf16) at 197, 577 and 1,024 tokens, 16,384
or so tokens to a chip: plain, by mmjax's kernel and by the two that jax ships, whose tiles are as large as they go;
beside them the projections alone. Needs the TPU's compiler (extra `plan`); half a minute for each. What stands in the
JSON isn't counted again.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import flash_attention as flash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

from mmjax.models.layers.attention import attend
from mmjax.models.layers.tpu_attention import attend_pallas
from mmjax.runtime.mesh import Mesh
from mmjax.train.plan.chips import pod
from mmjax.train.plan.compiled_program import read_program
from tests.benchmarks.machine import machine

TOPOLOGIES = ("v5e:1x1",)
EXAMPLES = {197: 84, 577: 28, 1_024: 16}  # by the length
WIDTH, HEADS = 768, 12
TILE = 128  # of which the shipped kernels want multiples


def alone(query: Any, key: Any, value: Any) -> Any:
    """No attention: the cheapest way to need queries, keys and values."""
    return query + key + value


def flash(query: Any, key: Any, value: Any) -> Any:
    """jax's flash attention; what fills the tokens up is a segment of its own."""
    batch, _, length, size = query.shape
    query, key, value = (_filled(x) for x in (query, key, value))
    whole, ids = query.shape[2], None
    if whole != length:
        real = jnp.broadcast_to((jnp.arange(whole) < length).astype(jnp.int32), (batch, whole))
        ids = flash_kernel.SegmentIds(real, real)
    block = _block(whole)
    sizes = flash_kernel.BlockSizes(block, whole, whole, 1, block, whole, whole, block, whole, whole, block)
    attended = flash_kernel.flash_attention(
        query, key, value, None, ids, sm_scale=size**-0.5, block_sizes=sizes
    )  # fmt: skip
    return attended[:, :, :length]


def splash(query: Any, key: Any, value: Any) -> Any:
    """jax's splash attention, with one kernel for the backward pass and tokens innermost, which moves the least."""
    heads, length, size = query.shape[1:]
    query, key, value = (_filled(x) for x in (query * size**-0.5, key, value))
    whole = query.shape[2]
    real = np.broadcast_to(np.arange(whole) < length, (whole, whole))
    mask = splash_attention_mask.FullMask((whole, whole)) if whole == length else splash_attention_mask.NumpyMask(real)
    block, layout = _block(whole), splash_attention_kernel.QKVLayout.SEQ_MINOR
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block, block_kv=whole, block_kv_compute=whole, block_q_dkv=block, block_kv_dkv=whole,
        block_kv_dkv_compute=whole, use_fused_bwd_kernel=True, q_layout=layout, k_layout=layout, v_layout=layout,
    )  # fmt: skip
    kernel = splash_attention_kernel.make_splash_mha_single_device(
        splash_attention_mask.MultiHeadMask([mask] * heads), block_sizes=sizes
    )
    attended: Any = jax.vmap(kernel)(query, key, value)
    return attended[:, :, :length]


ATTENTIONS = {
    "none": alone, "plain": attend, "pallas": attend_pallas, "jax's flash": flash, "jax's splash": splash
}  # fmt: skip


def counted(topology: str, length: int, attention: Callable[..., Any]) -> dict[str, Any]:
    """Bytes of the gradient's program, with what it holds meanwhile."""
    mesh = Mesh().build(pod(topology).devices)
    batch = EXAMPLES[length]

    def loss(x: Any, weights: Any, out: Any, gradient: Any) -> Any:
        parts = (x.reshape(-1, WIDTH) @ weights).reshape(batch, length, HEADS, 3, -1)
        attended = attention(*(jnp.moveaxis(parts[..., i, :], 1, 2) for i in range(3)))
        return ((jnp.moveaxis(attended, 1, 2).reshape(-1, WIDTH) @ out) * gradient).astype(jnp.float32).sum()

    began = time.perf_counter()
    with jax.set_mesh(mesh):
        whole = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
        shapes = (batch, length, WIDTH), (WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (batch * length, WIDTH)
        inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=whole) for shape in shapes]
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*inputs).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None
    assert memory is not None
    program = read_program(text, {axis: int(size) for axis, size in mesh.shape.items()})
    return {
        "bytes": program.product_bytes + program.other_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "compiled_in_seconds": round(time.perf_counter() - began, 1),
    }


def _filled(x: Any) -> Any:
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % TILE), (0, 0)))


def _block(length: int) -> int:
    """The largest block of queries whose tile of logits, and those of the gradient, fit into fast memory."""
    return length if length <= 5 * TILE else length // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where it is kept; what stands there isn't counted again")
    path = parser.parse_args().json
    runs = json.loads(path.read_text())["runs"] if path and path.exists() else []
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.tpu_attention",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")},
        "width": WIDTH,
        "heads": HEADS,
        "runs": runs,
    }
    done = {(run["topology"], run["tokens"], run["by"]) for run in runs}
    for topology in TOPOLOGIES:
        for length in EXAMPLES:
            for name, attention in ATTENTIONS.items():
                if (topology, length, name) in done:
                    continue
                run = {"topology": topology, "tokens": length, "examples": EXAMPLES[length], "by": name}
                runs.append(run | counted(topology, length, attention))
                print(f"{topology}, {length} tokens, {name}: {runs[-1]['bytes'] / 1e9:.2f} GB", flush=True)
                if path:
                    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
