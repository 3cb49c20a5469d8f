"""An experiment's file with a modality that mmjax doesn't know, how far away each pixel is, and with a transform, a
tower, a loss and an evaluator of its own."""

import inspect
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mmjax.data import BadExample, Spec, Transform
from mmjax.evaluate import Embedded, Evaluator
from mmjax.models import BareTower
from mmjax.objectives import View

SIDE = 8
PATCH = 4
LACKING, BROKEN = 3, 5  # rows of the table


@dataclass(frozen=True)
class ReadDepth(Transform):
    """A `.npy` file's bytes, or numbers, in metres -> float32 `[size, size, 1]`, in tens of metres."""

    size: int

    def __call__(self, value: Any, rng: Any) -> np.ndarray:
        try:
            metres = np.load(io.BytesIO(value)) if isinstance(value, bytes) else np.asarray(value)
        except ValueError as error:
            raise BadExample(f"no array: {error}", "undecodable") from error
        return metres.astype(np.float32).reshape(self.size, self.size, 1) / np.float32(10)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.size, self.size, 1), "float32")


class DepthTower(BareTower):
    """Depth `[B, H, W, 1]` -> patches of 4 x 4 -> a layer -> their mean -> `[B, embed_dim]`."""

    embed_dim: int

    @property
    def embedding_size(self) -> int:
        return self.embed_dim

    def setup(self) -> None:
        self.stem, self.head = nn.Dense(16), nn.Dense(self.embed_dim)

    def tokens(self, x, mask=None, keep=None, train=False, keys=None):
        batch, side = x.shape[0], x.shape[1] // PATCH
        cut = x.reshape(batch, side, PATCH, side, PATCH).transpose(0, 1, 3, 2, 4).reshape(batch, side * side, -1)
        return nn.gelu(self.stem(cut)), jnp.ones((batch, side * side), bool)

    def pool(self, tokens, token_mask):
        return self.head(super().pool(tokens, token_mask))


class Distance(nn.Module):
    """The squared distance of two modalities' embeddings."""

    pair: tuple[str, str]

    def views(self) -> tuple[View, ...]:
        return tuple(View(name) for name in self.pair)

    def per_example(self, encoded, batch, context):
        a, b = (encoded[view].embedding for view in self.views())
        there = batch[f"{self.pair[0]}_valid"] & batch[f"{self.pair[1]}_valid"]
        return jnp.where(there, jnp.sum((a - b) ** 2, axis=-1), 0.0), there

    def batch_loss(self, outputs, batch):
        far, there = outputs
        loss = jnp.sum(far) / jnp.maximum(jnp.sum(there), 1)
        return loss, {"far": loss}


@dataclass(frozen=True)
class Spread(Evaluator):
    """How far apart the embeddings of a modality lie."""

    modality: str
    split: str = "validation"

    def __call__(self, embedded: Embedded, embed_text: Any) -> Mapping[str, float]:
        there = embedded.embeddings[self.modality][embedded.valid[self.modality]]
        return {f"{self.name}/{self.modality}": float(np.std(there, axis=0).mean())}


PARTS = (ReadDepth, DepthTower, Distance, Spread)
HEAD = '''
"""Pictures and their depths."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.data import BadExample, Decode, Folder, Mixture, Resize, Spec, Transform
from mmjax.evaluate import Embedded, Evaluator, Retrieval
from mmjax.experiment import Experiment, experiment
from mmjax.models import BareTower, Blocks, ViT
from mmjax.objectives import Contrastive, View
from mmjax.optim import AdamW

PATCH = 4
'''
EXPERIMENT = """

@experiment
def depths() -> Experiment:
    return Experiment(
        towers={
            "image": ViT(patch=4, size=8, blocks=Blocks(width=16, depth=1, heads=2), embed_dim=8, pooling="mean"),
            "depth": DepthTower(embed_dim=8),
        },
        objectives={"seen": Contrastive(("image", "depth")), "near": Distance(("image", "depth"))},
        data=Mixture(
            {"rooms": 1.0},
            sources={"rooms": Folder("TABLE", files=("depth",))},
            transforms={"image": (Decode(), Resize(8)), "depth": (ReadDepth(8),)},
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=8,
        steps=4,
        save_every=2,
        log_every=1,
        evaluate_every=4,
        evaluators=[Retrieval(), Spread("depth")],
        most_bad_examples=0.5,
    )
"""


def write_rooms(folder: Path) -> Path:
    """An experiment's file, with 24 pictures and their depths beside it; one row lacks its depth, one's is broken."""
    rng = np.random.default_rng(0)
    lines = ["image,depth,split"]
    for row in range(24):
        far = rng.uniform(1, 20, (SIDE, SIDE)).astype(np.float32)
        Image.fromarray(np.repeat((far * 12).astype(np.uint8)[..., None], 3, axis=2)).save(folder / f"{row}.png")
        np.save(folder / f"{row}.npy", far)
        name = "" if row == LACKING else f"{row}.npy"
        lines.append(f"{row}.png,{name},{'validation' if row >= 16 else 'train'}")
    (folder / f"{BROKEN}.npy").write_bytes(b"no array")
    (folder / "rooms.csv").write_text("\n".join(lines) + "\n")
    text = "\n\n".join((HEAD, *map(inspect.getsource, PARTS), EXPERIMENT))
    (folder / "own.py").write_text(text.replace("TABLE", str(folder / "rooms.csv")))
    return folder / "own.py"


NAMED = """

@experiment
def named() -> Experiment:
    return Experiment(
        towers={
            "photo": ViT(patch=4, size=8, blocks=Blocks(width=16, depth=1, heads=2), embed_dim=8, pooling="mean"),
            "caption": TextTransformer(vocab=64, length=8, blocks=Blocks(width=16, depth=1, heads=2), embed_dim=8),
            "depth": DepthTower(embed_dim=8),
        },
        objectives={"told": Contrastive(("photo", "caption")), "seen": Contrastive(("photo", "depth"))},
        data=Mixture(
            {"rooms": 1.0},
            sources={"rooms": Folder("TABLE", files=("photo", "depth"))},
            transforms={
                "photo": (Decode(), Resize(8)),
                "caption": (Tokenize(SentencePiece(vocab_size=64), length=8),),
                "depth": (ReadDepth(8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=8,
        steps=2,
        evaluators=[Retrieval("test"), Gallery("test", rows=2)],
    )
"""
FLOORS, WALLS = ("red", "green", "blue", "grey"), ("tall", "low", "round", "long", "dark")


def write_named(folder: Path) -> Path:
    """An experiment's file whose towers have names of their own, with 20 photos, captions and depths beside it; eight
    to be judged on, twelve to train."""
    rng = np.random.default_rng(0)
    lines = ["photo,caption,depth,kind,split"]
    for row in range(20):
        floor, wall = FLOORS[row % 4], WALLS[row // 4]
        far = rng.uniform(1, 20, (SIDE, SIDE)).astype(np.float32)
        Image.fromarray(np.repeat((far * 12).astype(np.uint8)[..., None], 3, axis=2)).save(folder / f"{row}.png")
        np.save(folder / f"{row}.npy", far)
        lines.append(f"{row}.png,a {wall} room with a {floor} floor,{row}.npy,{floor},{'test' if row < 8 else 'train'}")
    (folder / "named.csv").write_text("\n".join(lines) + "\n")
    head = HEAD.replace("Folder, Mixture, Resize, Spec,", "Folder, Mixture, Resize, SentencePiece, Spec, Tokenize,")
    head = head.replace("Embedded, Evaluator, Retrieval", "Gallery, Retrieval")
    head = head.replace("Blocks, ViT", "Blocks, TextTransformer, ViT")
    text = "\n\n".join((head, *map(inspect.getsource, (ReadDepth, DepthTower)), NAMED))
    (folder / "named.py").write_text(text.replace("TABLE", str(folder / "named.csv")))
    return folder / "named.py"
