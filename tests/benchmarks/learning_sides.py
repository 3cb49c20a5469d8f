"""The sides of `tests.benchmarks.learning`: one dual encoder, trained by mmjax and by open_clip on the same batches.

Each run is a process of its own: python -m tests.benchmarks.learning_sides SIDE JOB, with a `Job` in JSON. It writes
the embeddings of the test split to the job's file.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import Decode, Mixture, PickCaption, Resize, SentencePiece, Tokenize
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Prepared, batches, prepare
from tests.benchmarks.step_sides import Size, allow_any_torchvision

BETAS, EPSILON, DECAY = (0.9, 0.98), 1e-6, 0.2
LARGEST_SCALE = math.log(100)
SIZE = Size(64, 16, 256, 12, 256, 256, batch=128, length=24, vocab=2_049, text_depth=6)  # the last id ends a text
TOY = Size(64, 32, 64, 1, 64, 64, batch=16, length=24, vocab=2_049, text_depth=1)  # for the test


@dataclass(frozen=True)
class Job:
    """A run: its data (a TFDS name), seed and steps, with the learning rate of each; where its embeddings go."""

    data: str
    seed: int
    rates: list[float]
    out: str
    toy: bool = False

    @property
    def size(self) -> Size:
        return TOY if self.toy else SIZE


def data_of(job: Job) -> Prepared:
    """Pictures and captions without augmentation; what several captions there are, a batch picks one of."""
    size = job.size
    tokenizer = SentencePiece(vocab_size=size.vocab - 1, name=f"learning_{job.data.replace('/', '_')}")
    pictures = (Decode(), Resize(size.pixels))
    return prepare(
        Mixture(
            {job.data: 1.0},
            transforms={"image": pictures, "text": (PickCaption(), Tokenize(tokenizer, size.length))},
            cache=True,
        )
    )


def ended(batch: dict[str, Any], size: Size) -> dict[str, np.ndarray]:
    """The batch with texts that end in the highest id, where open_clip looks for their embedding."""
    text = np.array(batch["text"])
    text[np.arange(len(text)), np.maximum(batch["text_mask"].sum(axis=1) - 1, 0)] = size.vocab - 1
    return {**batch, "text": text}


def training(job: Job, data: Prepared) -> Iterator[dict[str, np.ndarray]]:
    """The batches of the run, one for each of its steps."""
    stream = batches(data, batch_size=job.size.batch, seed=job.seed)
    for _ in job.rates:
        yield ended(next(stream), job.size)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]


def testing(job: Job, data: Prepared) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """The batches of the test split, and how many of their rows are real."""
    for batch, columns in evaluation_batches(data, "test", job.size.batch, columns=("id",)):
        yield ended(batch, job.size), len(columns["id"])


def mmjax(job: Job, data: Prepared) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """mmjax's CLIP: its own initialisation, AdamW and train step. Embeddings of pictures and texts; losses."""
    import jax

    from mmjax.models.layers.blocks import Blocks
    from mmjax.models.towers.text import TextTransformer
    from mmjax.models.towers.vit import ViT
    from mmjax.objectives.contrastive.objective import Contrastive
    from mmjax.objectives.pretrainer import Pretrainer
    from mmjax.runtime.mesh import Mesh, put
    from mmjax.train.step import compile_train_step, make_train_step
    from tests.states import init_state

    size = job.size
    seeing = Blocks(width=size.width, depth=size.depth, heads=size.width // 64, norm_eps=1e-5)
    reading = Blocks(
        width=size.text_width, depth=size.text_depth, heads=size.text_width // 64, norm_eps=1e-5, inits="clip"
    )
    image = ViT(
        patch=size.patch, size=size.pixels, blocks=seeing, embed_dim=size.embed_dim,
        cls=True, pooling="cls", pre_norm=True, stem_bias=False,
    )  # fmt: skip
    text = TextTransformer(
        vocab=size.vocab, length=size.length, blocks=reading, embed_dim=size.embed_dim, causal=True, pooling="last"
    )
    pretrainer = Pretrainer({"image": image, "text": text}, {"contrastive": Contrastive(("image", "text"))})
    optimizer, mesh = schedule_of(max(job.rates)), Mesh().build(jax.devices()[:1])
    losses, state, step = [], None, None
    with jax.set_mesh(mesh):
        for batch in training(job, data):
            rows = put(batch, mesh)
            if state is None or step is None:
                state = init_state(pretrainer, optimizer, batch, seed=job.seed, mesh=mesh)
                step = compile_train_step(
                    make_train_step(pretrainer, optimizer, seed=job.seed, total_steps=len(job.rates)), state, mesh
                )
            state, metrics = step(state, rows)
            losses.append(float(metrics["loss"]))
        assert state is not None
        embed = jax.jit(lambda params, rows: pretrainer.apply({"params": params}, rows, method="embed"))
        found = [(embed(state.params, batch), real) for batch, real in testing(job, data)]
    pictures, texts = ([np.asarray(each[name])[:real] for each, real in found] for name in ("image", "text"))
    return pictures, texts, losses


def schedule_of(peak: float) -> Any:
    """mmjax's AdamW with a tenth of 200 steps of warm-up and a cosine; open_clip gets its rate of each step."""
    from mmjax.optim.optimizers import AdamW

    return AdamW(
        peak_lr=peak, warmup_steps=20, weight_decay=DECAY, b1=BETAS[0], b2=BETAS[1], eps=EPSILON, clip_norm=None
    )


def open_clip(job: Job, data: Prepared) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """open_clip's CLIP: its own initialisation, torch's AdamW without decay of norms, biases and the scale, as in
    open_clip's training. Embeddings of pictures and texts; losses."""
    import torch  # pyright: ignore[reportMissingImports]

    allow_any_torchvision()
    from open_clip.loss import ClipLoss  # pyright: ignore[reportMissingImports]
    from open_clip.model import CLIP  # pyright: ignore[reportMissingImports]

    size = job.size
    vision: Any = {
        "image_size": size.pixels, "patch_size": size.patch, "width": size.width, "layers": size.depth, "head_width": 64
    }  # fmt: skip
    text: Any = {
        "context_length": size.length, "vocab_size": size.vocab, "width": size.text_width,
        "heads": size.text_width // 64, "layers": size.text_depth,
    }  # fmt: skip
    torch.manual_seed(job.seed)
    model = CLIP(embed_dim=size.embed_dim, vision_cfg=vision, text_cfg=text).train()
    named = list(model.named_parameters())
    apart = {name for name, p in named if p.ndim < 2 or any(x in name for x in ("bn", "ln", "bias", "logit_scale"))}
    groups = [
        {"params": [p for name, p in named if name in apart], "weight_decay": 0.0},
        {"params": [p for name, p in named if name not in apart], "weight_decay": DECAY},
    ]
    adam = torch.optim.AdamW(groups, lr=job.rates[0], betas=BETAS, eps=EPSILON)
    loss_of, losses = ClipLoss(), []

    def tensors(batch: dict[str, np.ndarray]) -> tuple[Any, Any]:
        pixels = torch.from_numpy(np.array(batch["image"])).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return pixels.contiguous(), torch.from_numpy(batch["text"]).long()

    for rate, batch in zip(job.rates, training(job, data), strict=True):
        for group in adam.param_groups:
            group["lr"] = rate
        adam.zero_grad(set_to_none=True)
        loss = loss_of(*model(*tensors(batch)))
        loss.backward()
        adam.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, LARGEST_SCALE)
        losses.append(loss.item())
    model.eval()
    pictures, texts = [], []
    with torch.no_grad():
        for batch, real in testing(job, data):
            pixels, words = tensors(batch)
            pictures.append(model.encode_image(pixels, normalize=True)[:real].numpy())
            texts.append(model.encode_text(words, normalize=True)[:real].numpy())
    return pictures, texts, losses


SIDES = {"mmjax": mmjax, "open_clip": open_clip}


def main(side: str, job: Job) -> None:
    began = time.perf_counter()
    data = data_of(job)
    pictures, texts, losses = SIDES[side](job, data)
    Path(job.out).parent.mkdir(parents=True, exist_ok=True)
    words = np.concatenate([batch["text"][:real] for batch, real in testing(job, data)])
    np.savez(
        job.out, image=np.concatenate(pictures), text=np.concatenate(texts), words=words, losses=np.array(losses),
        seconds=time.perf_counter() - began,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Job(**json.loads(sys.argv[2])))
