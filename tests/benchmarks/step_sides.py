"""The sides of `tests.benchmarks.step`: one dual encoder's training step in mmjax, open_clip and Hugging Face.

Each side runs in a process of its own, which takes a step for every line on its standard input:
python -m tests.benchmarks.step_sides SIDE SIZE. Answers are lines that begin with "@", then JSON.
"""

import contextlib
import dataclasses
import functools
import json
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.machine import most_memory

RATE, DECAY, BETAS, EPSILON = 1e-4, 0.1, (0.9, 0.98), 1e-6
KEPT = 0.5  # of the patches, where some are dropped (FLIP)
HOW: dict[str, dict[str, Any]] = {  # fields of mmjax's blocks that differ from their defaults
    "remat": {"remat": "full"},
    "dots": {"remat": "dots"},
    "stored": {"remat": None},
    "unrolled": {"unroll": 24},  # no depth is larger
}


@dataclass(frozen=True)
class Size:
    """A dual encoder and its batch. Heads are 64 wide."""

    pixels: int
    patch: int
    width: int
    depth: int
    text_width: int
    embed_dim: int
    batch: int
    length: int = 77
    vocab: int = 49_408
    text_depth: int = 12
    dtype: Any = "float32"


SIZES = {
    "s16-64": Size(64, 16, 384, 12, 384, 384, batch=64, length=32),
    "s16-224": Size(224, 16, 384, 12, 384, 384, batch=16, length=32),
    "b16": Size(224, 16, 768, 12, 512, 512, batch=512, dtype="bfloat16"),
    "l14": Size(224, 14, 1_024, 24, 768, 768, batch=128, dtype="bfloat16"),
    "toy": Size(32, 16, 64, 2, 64, 64, batch=8, length=8, vocab=64, text_depth=2),  # for the test
}
SIDES = (
    *(f"{by}{how}" for by in ("mmjax", "open_clip", "open_clip compiled") for how in ("", " remat", " half")),
    *(f"mmjax {how}" for how in ("dots", "stored", "unrolled", "stored unrolled", "remat unrolled")),
    *("hugging_face", "hugging_face remat", "bare products"),
)


def size_of(name: str) -> Size:
    """The size of that name; `b16@1024` is `b16` with a batch of 1,024.

    Raises:
        SystemExit: there is no such size, or no such batch.
    """
    base, at, batch = name.partition("@")
    if base not in SIZES or (at and not re.fullmatch("[1-9][0-9]*", batch)):
        raise SystemExit(f"Error: there is no size {name!r}; there are {', '.join(SIZES)}, each with @BATCH if need be")
    return dataclasses.replace(SIZES[base], batch=int(batch)) if at else SIZES[base]


@dataclass(frozen=True)
class Made:
    """A side, ready: a step, which gives the loss; the number of parameters; and its most memory, in bytes."""

    step: Callable[[], float]
    parameters: int
    memory: Callable[[], int]


def inputs(size: Size) -> dict[str, np.ndarray]:
    """The same batch for every side: pictures, and texts without padding, whose last token has the highest id."""
    rng = np.random.default_rng(0)
    text = rng.integers(1, size.vocab - 1, (size.batch, size.length)).astype(np.int32)
    text[:, -1] = size.vocab - 1  # what open_clip and Hugging Face pool at
    image = rng.integers(0, 256, (size.batch, size.pixels, size.pixels, 3)).astype(np.uint8)
    return {"image": image, "text": text}


def mmjax(size: Size, how: str) -> Made:
    """mmjax's own train step, as `mmjax train` compiles it."""
    import jax

    from mmjax.runtime.mesh import put
    from tests.states import init_state

    pretrainer, optimizer, mesh, rows = parts(size, how)
    jax.set_mesh(mesh)  # for as long as the process lives
    state, batch = init_state(pretrainer, optimizer, rows, seed=0, mesh=mesh), put(rows, mesh)
    compiled = traced(size, how).lower().compile()
    current = [state]

    def step() -> float:
        current[0], metrics = compiled(current[0], batch)
        return float(metrics["loss"])

    def memory() -> int:
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else most_memory()

    return Made(step, sum(leaf.size for leaf in jax.tree.leaves(state.params)), memory)


def parts(size: Size, how: str) -> tuple[Any, Any, Any, dict[str, np.ndarray]]:
    """Pretrainer, optimiser, mesh (of one device), and a batch."""
    import jax

    from mmjax.models.layers.blocks import Blocks
    from mmjax.models.towers.text import TextTransformer
    from mmjax.models.towers.vit import ViT
    from mmjax.objectives.contrastive.objective import Contrastive
    from mmjax.objectives.masking import Keep
    from mmjax.objectives.pretrainer import Pretrainer
    from mmjax.optim.optimizers import AdamW
    from mmjax.runtime.mesh import Mesh

    words = set(how.split())
    shared: dict[str, Any] = {
        "norm_eps": 1e-5,
        **dict(field for word in words for field in HOW.get(word, {}).items()),
        "dtype": size.dtype,
        "attention": "cudnn" if jax.default_backend() == "gpu" and size.dtype == "bfloat16" else "plain",
    }
    seeing = Blocks(width=size.width, depth=size.depth, heads=size.width // 64, **shared)
    reading = Blocks(width=size.text_width, depth=size.text_depth, heads=size.text_width // 64, inits="clip", **shared)
    image = ViT(
        patch=size.patch, size=size.pixels, blocks=seeing, embed_dim=size.embed_dim,
        cls=True, pooling="cls", pre_norm=True, stem_bias=False,
    )  # fmt: skip
    text = TextTransformer(
        vocab=size.vocab, length=size.length, blocks=reading, embed_dim=size.embed_dim, causal=True, pooling="last"
    )
    masking = {"image": Keep(KEPT)} if "half" in words else {}
    contrastive = Contrastive(("image", "text"), masking=masking)
    optimizer = AdamW(
        peak_lr=RATE, weight_decay=DECAY, b1=BETAS[0], b2=BETAS[1], eps=EPSILON, schedule="constant", clip_norm=None
    )
    rows = inputs(size)
    rows |= {f"{name}_valid": np.ones(size.batch, bool) for name in ("image", "text")}
    rows["index"] = np.arange(size.batch, dtype=np.uint32)
    mesh = Mesh().build(jax.devices()[:1])
    return Pretrainer({"image": image, "text": text}, {"contrastive": contrastive}), optimizer, mesh, rows


def traced(size: Size, how: str) -> Any:
    """The train step, traced; nothing is computed."""
    import jax

    from mmjax.runtime.mesh import batch_sharding
    from mmjax.train.step import compile_train_step, make_train_step
    from tests.states import abstract_state

    pretrainer, optimizer, mesh, rows = parts(size, how)
    with jax.set_mesh(mesh):
        state = abstract_state(pretrainer, optimizer, rows, mesh=mesh)
        step = compile_train_step(make_train_step(pretrainer, optimizer, seed=0, total_steps=1_000), state, mesh)
        sharding = batch_sharding(mesh)
        batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in rows.items()}
        return step.trace(state, batch)


def model_flops(size: Size, how: str) -> int:
    """FLOPs of the products of mmjax's step with nothing computed twice."""
    from mmjax.train.plan.flops import count

    return count(traced(size, "half stored" if how.endswith("half") else "stored").jaxpr)


def bare_products(size: Size) -> Made:
    """The step's matrix products alone, each as often as the step has it, one after another."""
    import jax
    import jax.numpy as jnp

    from mmjax.train.plan.flops import products

    times: Counter[Any] = Counter()
    for product in (each for each in products(traced(size, "stored").jaxpr) if not each.fused):
        equation = product.equation
        sides = tuple((variable.aval.shape, str(variable.aval.dtype)) for variable in equation.invars)
        out = str(equation.outvars[0].aval.dtype)
        times[sides, equation.params["dimension_numbers"], str(equation.params["precision"]), out] += product.times

    def function(numbers: Any, precision: str, out: str) -> Callable[..., Any]:
        highest = jax.lax.Precision.HIGHEST if "HIGHEST" in precision else None
        return jax.jit(lambda x, y: jax.lax.dot_general(x, y, numbers, highest, jnp.dtype(out)))

    rng = np.random.default_rng(0)
    calls = []
    for (sides, numbers, precision, out), n in times.items():
        arrays = [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape, dtype in sides]
        calls.append((function(numbers, precision, out).lower(*arrays).compile(), arrays, n))

    def step() -> float:
        for call, arrays, n in calls:
            for _ in range(n):
                last = call(*arrays)
            jax.block_until_ready(last)
        return float("nan")

    return Made(step, 0, most_memory)


def open_clip(size: Size, how: str, compiled: bool = False) -> Made:
    """open_clip's CLIP and ClipLoss, its own AdamW from torch (fused)."""
    import torch  # pyright: ignore[reportMissingImports]

    allow_any_torchvision()
    from open_clip.loss import ClipLoss  # pyright: ignore[reportMissingImports]
    from open_clip.model import CLIP  # pyright: ignore[reportMissingImports]

    vision: Any = {
        "image_size": size.pixels, "patch_size": size.patch, "width": size.width, "layers": size.depth,
        "head_width": 64, "patch_dropout": 1 - KEPT if how == "half" else 0.0,
    }  # fmt: skip
    text: Any = {
        "context_length": size.length, "vocab_size": size.vocab, "width": size.text_width,
        "heads": size.text_width // 64, "layers": size.text_depth,
    }  # fmt: skip
    torch.manual_seed(0)
    model = CLIP(embed_dim=size.embed_dim, vision_cfg=vision, text_cfg=text)
    if how == "remat":
        model.set_grad_checkpointing()
    loss = ClipLoss()
    return in_torch(size, model, lambda run, image, text: loss(*run(image, text)), compiled)


def hugging_face(size: Size, how: str) -> Made:
    """transformers' CLIPModel with its own loss and torch's fused attention."""
    import torch  # pyright: ignore[reportMissingImports]

    allow_any_torchvision()
    from transformers import CLIPConfig, CLIPModel  # pyright: ignore[reportMissingImports]

    def sizes(width: int, depth: int) -> dict[str, Any]:
        return {
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth,
            "num_attention_heads": width // 64, "hidden_act": "gelu",
        }  # fmt: skip

    vision = sizes(size.width, size.depth) | {"image_size": size.pixels, "patch_size": size.patch}
    last = {"bos_token_id": 0, "eos_token_id": size.vocab - 1, "pad_token_id": 1}
    text = sizes(size.text_width, size.text_depth)
    text |= {"vocab_size": size.vocab, "max_position_embeddings": size.length, **last}
    torch.manual_seed(0)
    attention: dict[str, Any] = {"attn_implementation": "sdpa"}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.embed_dim, **attention)
    model = CLIPModel(config)
    if how == "remat":
        model.gradient_checkpointing_enable()
    return in_torch(
        size, model, lambda run, image, text: run(input_ids=text, pixel_values=image, return_loss=True).loss, False
    )


def in_torch(size: Size, model: Any, loss_of: Callable[[Any, Any, Any], Any], compiled: bool) -> Made:
    """A training step of a torch model: fp32 parameters, autocast where the size is bf16, AdamW (fused)."""
    import torch  # pyright: ignore[reportMissingImports]

    gpu = torch.cuda.is_available()
    where = "cuda" if gpu else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = model.train().to(where)
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True)
    run = torch.compile(model) if compiled else model
    rows = inputs(size)
    pixels = torch.from_numpy(rows["image"]).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous().to(where)
    words = torch.from_numpy(rows["text"]).long().to(where)

    def step() -> float:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(where, torch.bfloat16, enabled=size.dtype == "bfloat16"):
            loss = loss_of(run, pixels, words)
        loss.backward()
        adam.step()
        return loss.item()

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Made(step, parameters, torch.cuda.max_memory_allocated if gpu else most_memory)


@functools.cache  # a second library would take the place of the first, whose definitions end with it
def allow_any_torchvision() -> None:
    """Lets torchvision be imported beside a torch that it wasn't built for; its compiled operators aren't used here."""
    import torch  # pyright: ignore[reportMissingImports]

    with contextlib.suppress(RuntimeError):
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]

        return  # it was built for this torch
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # there already
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    sys.modules[__name__].__dict__["_torchvision"] = library  # the definitions live as long as it does


def make(side: str, size: Size) -> Made:
    by, _, how = side.partition(" ")
    if side == "bare products":
        return bare_products(size)
    if by == "mmjax":
        return mmjax(size, how)
    if by == "open_clip":
        compiled = how.startswith("compiled")
        return open_clip(size, how.removeprefix("compiled").strip(), compiled)
    if by == "hugging_face":
        return hugging_face(size, how)
    raise SystemExit(f"Error: there is no side {side!r}; there are {', '.join(SIDES)}")


def answers(made: Made) -> Iterator[dict[str, Any]]:
    """One for every line that comes in: what a step took."""
    for _ in sys.stdin:
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        loss = made.step()
        after = resource.getrusage(resource.RUSAGE_SELF)
        yield {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
            "loss": loss,
        }


def main(side: str, size: str) -> None:
    made = make(side, size_of(size))
    say = lambda answer: print("@" + json.dumps(answer), flush=True)  # noqa: E731
    say({"parameters": made.parameters})
    for answer in answers(made):
        say(answer | {"bytes": made.memory()})


if __name__ == "__main__":
    main(*sys.argv[1:])
