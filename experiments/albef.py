"""ALBEF: picture and text aligned before they are fused (Li et al. 2021, arXiv:2107.07651).

    mmjax train experiments/albef.py:base --workdir /mnt/bucket/albef     # 512 pairs a step, as published
    mmjax train experiments/albef.py:tiny --workdir runs/albef_tiny       # minutes on a CPU, on the demo data

One BERT in two halves: its first six layers read the caption alone, its last six attend to the picture's tokens too.
Three objectives: contrast of the two towers, matching with negatives that the towers take for right ones, and masked
words that are read with the picture. A teacher, the moving average of the model, gives the contrast its keys, which a
queue remembers, and softens the targets. Of the paper's four million pairs CC12M stands in for all; its towers start
from DeiT and BERT, these from scratch unless `init` says otherwise.
"""

from typing import Any

from mmjax.data import (
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Reranked, Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Cross, TextTransformer, ViT
from mmjax.objectives import MaskedText, Matching, MomentumContrastive
from mmjax.optim import AdamW

VOCAB, MASK, LENGTH = 30_522, 103, 30  # BERT's released vocabulary; tokens of a caption
EPOCH = 4_000_000 // 512
TINY_VOCAB, TINY_LENGTH, SIDE = 1_024, 28, 96
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "remat": "dots"}
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}
TEXT: dict[str, Any] = {"types": 2, "position_std": 0.02, "pre_norm": True, "pooling": "cls", "projection_bias": True}


@experiment
def objectives(
    vocab: int, mask_id: int, norm_eps: float, ramp_steps: int, hardness: Any, momentum: Any
) -> dict[str, Any]:
    """Contrast, matching and masked words, each of weight 1; the teacher softens the targets of the first and last."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1}
    taught: dict[str, Any] = {"alpha": 0.4, "ramp_steps": ramp_steps}
    return {
        "contrastive": MomentumContrastive(("image", "text"), **dict(momentum), **taught),
        "matching": Matching("reading", **dict(hardness)),
        "words": MaskedText(**drawn, norm_eps=norm_eps, tied=True, fusion="reading", beside=("image",), **taught),
    }


@experiment
def base() -> Experiment:
    """209,937,725 parameters: 85.8 million of the image tower, 123.7 million of BERT with its cross-attention."""
    half = Blocks(width=768, depth=6, heads=12, **BERT, **BIG)
    return Experiment(
        towers={
            "image": ViT(
                patch=16,
                size=256,
                cls=True,
                pooling="cls",
                projection_bias=True,
                blocks=Blocks(width=768, depth=12, heads=12, norm_eps=1e-6, **BIG),
                embed_dim=256,
            ),
            "text": TextTransformer(vocab=VOCAB, length=512, blocks=half, embed_dim=256, **TEXT),
        },
        fusions={"reading": Cross(reader="text", blocks=half)},
        objectives=objectives(
            VOCAB, MASK, norm_eps=1e-12, ramp_steps=EPOCH, hardness={"within": 64}, momentum={"queue": 65_536}
        ),
        data=Mixture(
            {"cc12m": 1.0},
            sources={"cc12m": Tfds("cc12m", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(256, area=(0.2, 1.0)), RandomFlip()),
                "text": (
                    PickCaption(),
                    Lowercase(),
                    Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), LENGTH, bos=True),
                ),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-4, end_lr=1e-5, warmup_steps=2_000, weight_decay=0.02, b2=0.999, clip_norm=None),
        batch_size=512,
        steps=30 * EPOCH,
        ema=0.995,
        mesh=Mesh(fsdp=8),
    )


@experiment
def tiny_towers() -> dict[str, Any]:
    """Of pre-LN blocks, which learn from scratch in few steps."""
    image = Blocks(depth=3, **SMALL)
    return {
        "image": ViT(patch=12, size=SIDE, cls=True, pooling="cls", blocks=image, embed_dim=128),
        "text": TextTransformer(
            vocab=TINY_VOCAB, length=TINY_LENGTH, pooling="cls", blocks=Blocks(depth=2, **SMALL), embed_dim=128
        ),
    }


@experiment
def tiny() -> Experiment:
    """The same on the demo data: an emoji of any size, somewhere in the picture, and its name.

    At 0.07 the towers learn at once which names are near, matching sees those alone from then on, and doesn't begin to
    learn; at 0.3 it sees easier ones too.
    """
    return Experiment(
        towers=tiny_towers(),
        fusions={"reading": Cross(reader="text", blocks=Blocks(depth=2, **SMALL))},
        objectives=objectives(
            TINY_VOCAB,
            mask_id=4,
            norm_eps=1e-6,
            ramp_steps=100,
            hardness={"temperature": 0.3},
            momentum={"queue": 1_024, "partners": "id"},
        ),
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), Resize(SIDE), RandomAffine(translate=0.25, scale=(0.4, 1.0))),
                "text": (
                    PickCaption(),
                    Lowercase(),
                    Tokenize(SentencePiece(TINY_VOCAB, name="spoken_emoji"), TINY_LENGTH, bos=True),
                ),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05),
        batch_size=128,
        steps=400,
        ema=0.98,
        evaluators=[
            Retrieval(),
            Reranked("matching", top=16),
            Retrieval(split="test", when="end"),
            Reranked("matching", top=16, split="test"),
        ],
        evaluate_every=200,
        save_every=200,
    )
