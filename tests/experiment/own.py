"""A loss, an evaluator and a transform of one's own, in an experiment's file and in one beside it (`own_losses.py`)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from own_losses import Distance

from mmjax.data import Decode, Folder, Mixture, Resize, SentencePiece, Tokenize, Transform
from mmjax.evaluate import Evaluator
from mmjax.experiment import Experiment, experiment
from mmjax.models import Blocks, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW


@dataclass(frozen=True)
class Negative(Transform):
    """White for black."""

    def __call__(self, value: Any, rng: Any) -> Any:
        return 255 - value


@dataclass(frozen=True)
class Spread(Evaluator):
    """How far apart a modality's embeddings lie."""

    modality: str = "image"
    split: str = "test"
    when: Any = "end"
    name: str = "spread"
    inputs: tuple[str, ...] = ()

    def __call__(self, embedded: Any, embed_text: Any) -> dict[str, float]:
        return {f"{self.name}/{self.modality}": float(np.std(embedded.embeddings[self.modality], axis=0).mean())}


@experiment
def own() -> Experiment:
    size: dict[str, Any] = dict(width=16, depth=1, heads=2)
    return Experiment(
        towers={
            "image": ViT(patch=8, size=16, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={"contrastive": Contrastive(("image", "text")), "near": Distance(("image", "text"))},
        weights={"near": 0.5},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(16), Negative()),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=16,
        steps=4,
        save_every=2,
        log_every=1,
        evaluators=[Spread()],
    )
