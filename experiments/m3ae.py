"""M3AE: one masked autoencoder over pictures and their texts (Geng et al. 2022, arXiv:2205.14204).

    mmjax train experiments/m3ae.py:vit_b16 --workdir /mnt/bucket/m3ae       # batch 4,096, 100 epochs, as published
    mmjax train experiments/m3ae.py:tiny --workdir runs/m3ae_tiny            # minutes on a CPU, on the demo data
    mmjax train experiments/m3ae.py:tiny_image_only --workdir runs/m3ae_image   # what it is compared with

CC12M is read as a TFDS dataset of one's own making (no builder ships one). The texts' pieces are BERT's published
number, trained on the captions. What is kept is drawn for each example; the released code draws once for a device.
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
from mmjax.evaluate import Probe
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Decoder, JointDecoder, TextTransformer, Trunk, ViT
from mmjax.objectives import MaskedImage, MaskedTogether
from mmjax.optim import AdamW

PAIRS, EPOCHS, BATCH = 12_000_000, 100, 4_096
EPOCH = PAIRS // BATCH
MEAN, STD = (0.5762, 0.5503, 0.5213), (0.3207, 0.3169, 0.3307)
UNDECAYED = (r"(^|/)(bias|scale|cls|mask|kind|embedding)$",)  # words, tokens, vectors of a modality


@experiment
def towers(size: int, patch: int, blocks: Blocks, vocab: int, length: int) -> dict[str, Any]:
    shared = {"trunk": Trunk(blocks=blocks), "pooling": "cls", "positions": "sincos"}
    return {
        "image": ViT(patch=patch, size=size, mean=MEAN, std=STD, **shared),
        "text": TextTransformer(vocab=vocab, length=length, token_std=1.0, **shared),
    }


@experiment
def published(width: int, depth: int, heads: int) -> Experiment:
    encoder = Blocks(width=width, depth=depth, heads=heads, remat="dots", dtype="bfloat16")
    decoder = JointDecoder(blocks=Blocks(width=512, depth=8, heads=16, remat="dots", dtype="bfloat16"))
    return Experiment(
        towers=towers(256, 16, encoder, vocab=30_522, length=64),
        objectives={"masked": MaskedTogether(vocab=30_522, decoder=decoder)},
        data=Mixture(
            {"cc12m": 1.0},
            sources={"cc12m": Tfds("cc12m", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(256, area=(0.2, 1.0)), RandomFlip()),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(30_522, name="cc12m"), 64)),
            },
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=1.5e-4 * BATCH / 256, warmup_steps=5 * EPOCH, weight_decay=0.05, b2=0.95, no_decay=UNDECAYED
        ),
        batch_size=BATCH,
        steps=EPOCHS * EPOCH,
        mesh=Mesh(fsdp=8),
    )


@experiment
def vit_s16() -> Experiment:
    """74,782,266 parameters, the decoder's among them."""
    return published(384, 12, 6)


@experiment
def vit_b16() -> Experiment:
    """150,757,434 parameters, the decoder's among them."""
    return published(768, 12, 12)


@experiment
def vit_l16() -> Experiment:
    """376,155,194 parameters, the decoder's among them."""
    return published(1_024, 24, 16)


@experiment
def emoji(text: bool) -> Mixture:
    image = (Decode(), RandomResizedCrop(64, area=(0.7, 1.0)))
    words = (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16))
    chains: dict[str, Any] = {"image": image, "text": words} if text else {"image": image}
    return Mixture({"spoken_emoji": 1.0}, transforms=chains, cache=True)


@experiment
def small(objective: Any, text: bool) -> Experiment:
    both = towers(64, 8, Blocks(width=128, depth=4, heads=4, remat="dots"), vocab=1_024, length=16)
    return Experiment(
        towers=both if text else {"image": both["image"]},
        objectives={"masked": objective},
        data=emoji(text),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05, b2=0.95, no_decay=UNDECAYED),
        batch_size=256,
        steps=600,
        evaluators=[Probe("group", split="test", fit_split="train", when="end")],
    )


@experiment
def tiny() -> Experiment:
    decoder = JointDecoder(blocks=Blocks(width=64, depth=2, heads=4, remat="dots"))
    return small(MaskedTogether(vocab=1_024, decoder=decoder), text=True)


@experiment
def tiny_image_only() -> Experiment:
    """The same encoder, pictures alone: MAE."""
    decoder = Decoder(blocks=Blocks(width=64, depth=2, heads=4, remat="dots"))
    return small(MaskedImage(decoder=decoder), text=False)
