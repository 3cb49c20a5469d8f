"""FLIP: CLIP from a part of each picture's patches (Li et al. 2022, arXiv:2212.00794).

    mmjax train experiments/flip.py:vit_b16 --workdir /mnt/bucket/flip            # batch 65,536, as published
    mmjax train experiments/flip.py:vit_b16_unmasked --workdir /mnt/bucket/flip2  # then tuned on whole pictures
    mmjax train experiments/flip.py:tiny --workdir runs/flip_tiny                 # minutes on a CPU, on the demo data
    mmjax train experiments/flip.py:tiny_whole --workdir runs/flip_whole          # what it is compared with

Half of the patches are dropped before the encoder; nothing is rebuilt. Evaluation sees whole pictures. The text tower
attends to its padding and reads its first position, as the released code does. An epoch here is as many pairs as
ImageNet has pictures, as there.
"""

from typing import Any

from mmjax.data import (
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomFlip,
    RandomResizedCrop,
    SentencePiece,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, TextTransformer, ViT
from mmjax.objectives import Contrastive, Keep
from mmjax.optim import AdamW

BATCH, EPOCH = 65_536, 1_281_167  # pairs
VOCAB, LENGTH = 30_523, 32
IMAGE: dict[str, Any] = {"positions": "sincos", "cls": True, "pooling": "mean"}
TEXT: dict[str, Any] = {"attend_padding": True, "pooling": "cls"}
DECAY: dict[str, Any] = {"weight_decay": 0.2, "b2": 0.95}
RECIPE: dict[str, Any] = {"keep": 0.5, "base_lr": 4e-6, "epochs": 10_000, "init": {}}
BIG: dict[str, Any] = {"remat": "dots", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "depth": 4, "heads": 4, "remat": "dots"}


@experiment
def flip(image: Any, text: Any, keep: float, base_lr: float, epochs: int, warmup: int, init: Any) -> Experiment:
    """The published recipe; `base_lr` is for a batch of 256, `epochs` and `warmup` count virtual epochs."""
    return Experiment(
        towers={"image": image, "text": text},
        objectives={"contrastive": Contrastive(("image", "text"), masking={"image": Keep(keep)})},
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(224, area=(0.5, 1.0)), RandomFlip()),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(VOCAB, name="laion400m_flip"), LENGTH)),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=base_lr * BATCH / 256, warmup_steps=warmup * EPOCH // BATCH, clip_norm=None, **DECAY),
        batch_size=BATCH,
        steps=epochs * EPOCH // BATCH,
        mesh=Mesh(fsdp=8),
        init=init,
    )


@experiment
def sized(patch: int, width: int, depth: int, heads: int, words: int, text_depth: int, **recipe: Any) -> Experiment:
    """`words` is the width of the text tower, and of the embeddings."""
    blocks = Blocks(width=width, depth=depth, heads=heads, **BIG)
    image = ViT(patch=patch, size=224, blocks=blocks, embed_dim=words, **IMAGE)
    reading = Blocks(width=words, depth=text_depth, heads=words // 64, **BIG)
    text = TextTransformer(vocab=VOCAB, length=LENGTH, blocks=reading, embed_dim=words, **TEXT)
    return flip(image, text, **recipe)


@experiment
def vit_b16() -> Experiment:
    """139,776,513 parameters."""
    return sized(16, 768, 12, 12, 512, 12, warmup=40, **RECIPE)


@experiment
def vit_l16() -> Experiment:
    """412,998,401 parameters."""
    return sized(16, 1_024, 24, 16, 768, 12, warmup=40, **RECIPE)


@experiment
def vit_h14() -> Experiment:
    """966,394,881 parameters."""
    return sized(14, 1_280, 32, 16, 1_024, 24, warmup=200, **RECIPE)


@experiment
def vit_b16_unmasked() -> Experiment:
    """The short last phase, on whole pictures: it starts from a run of `vit_b16`."""
    start = {name: Load("runs/flip_b16") for name in ("towers.image", "towers.text", "objectives.contrastive")}
    return sized(16, 768, 12, 12, 512, 12, keep=1.0, base_lr=4e-8, epochs=100, warmup=20, init=start)


@experiment
def small(keep: float) -> Experiment:
    image = ViT(patch=8, size=64, blocks=Blocks(**SMALL), embed_dim=128, **IMAGE)
    text = TextTransformer(vocab=1_024, length=16, blocks=Blocks(**SMALL), embed_dim=128, **TEXT)
    pictures = (Decode(), RandomResizedCrop(64, area=(0.5, 1.0)))
    names = (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16))
    return Experiment(
        towers={"image": image, "text": text},
        objectives={"contrastive": Contrastive(("image", "text"), masking={"image": Keep(keep)})},
        data=Mixture({"spoken_emoji": 1.0}, transforms={"image": pictures, "text": names}),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, **DECAY),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval(), Retrieval(split="test", when="end")],
        evaluate_every=100,
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    return small(keep=0.5)


@experiment
def tiny_whole() -> Experiment:
    return small(keep=1.0)
