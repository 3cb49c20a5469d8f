"""A kind of storage and an optimiser of one's own: pictures in an archive, and descent by signs."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optax

from mmjax.data import Decode, Mixture, Records, Resize, SentencePiece, Source, Tokenize
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, experiment
from mmjax.models import Blocks, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import Optimizer


@dataclass(frozen=True)
class Zipped(Source):
    """An archive with a folder for each split, in it `a red disc.png`."""

    file: str

    def open(self, split: str, data_dir: str | None = None) -> "ZippedRecords":
        return ZippedRecords(self.file, split)

    def places(self) -> dict[str, str]:
        return {"file": self.file}


class ZippedRecords(Records):
    columns = ("id", "image", "text")
    media = ("image",)

    def __init__(self, file: str, split: str):
        self._file = file
        with zipfile.ZipFile(file) as archive:
            self._names = sorted(name for name in archive.namelist() if name.startswith(f"{split}/"))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        name = self._names[index]
        with zipfile.ZipFile(self._file) as archive:
            return {"id": name, "image": archive.read(name), "text": name.split("/")[1].removesuffix(".png")}

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        return {"rows": len(self), "names": " ".join(self._names)}


@dataclass(frozen=True)
class Sign(Optimizer):
    """Each parameter goes by the learning rate, against its gradient's sign."""

    def direction(self, params: Any) -> list[optax.GradientTransformation]:
        return [optax.scale_by_sign()]


@experiment
def zipped() -> Experiment:
    return Experiment(
        towers={
            "image": ViT(patch=8, size=16, blocks=Blocks(width=16, depth=1, heads=2), embed_dim=8, pooling="mean"),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(width=16, depth=1, heads=2), embed_dim=8),
        },
        objectives={"image_text": Contrastive(("image", "text"))},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Zipped("ARCHIVE")},
            transforms={
                "image": (Decode(), Resize(16)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=Sign(peak_lr=1e-3, schedule="constant", frozen=("towers_text/",), clip_norm=None),
        batch_size=8,
        steps=3,
        save_every=1,
        log_every=1,
        evaluators=[Retrieval()],
    )
