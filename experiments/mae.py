"""MAE: masked autoencoders are scalable vision learners (He et al. 2021, arXiv:2111.06377).

    mmjax train experiments/mae.py:vit_b16 --workdir /mnt/bucket/mae       # batch 4,096, 800 epochs, as published
    mmjax train experiments/mae.py:tiny --workdir runs/mae_tiny            # minutes on a CPU, on the demo data

A quarter of a picture's patches is encoded, and a light decoder rebuilds the others, each with mean 0 and variance 1.
The encoder alone is kept: what it is worth, a linear probe on its CLS token says, or fine-tuning.
"""

from typing import Any

from mmjax.data import Decode, Mixture, RandomFlip, RandomResizedCrop
from mmjax.evaluate import Probe
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Decoder, ViT
from mmjax.objectives import MaskedImage
from mmjax.optim import AdamW

PICTURES, EPOCHS, WARMUP_EPOCHS, BATCH = 1_281_167, 800, 40, 4_096
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@experiment
def encoder(patch: int, size: int, blocks: Blocks, **more: Any) -> ViT:
    return ViT(patch=patch, size=size, blocks=blocks, positions="sincos", cls=True, **more)


@experiment
def masked() -> MaskedImage:
    decoder = Decoder(blocks=Blocks(width=512, depth=8, heads=16, remat="dots", dtype="bfloat16"))
    return MaskedImage(decoder=decoder, keep=0.25, normalise=True)


@experiment
def imagenet() -> Mixture:
    return Mixture(
        {"imagenet2012": 1.0},
        transforms={"image": (Decode(upright=False), RandomResizedCrop(224, area=(0.2, 1.0)), RandomFlip())},
        workers=16,
    )


@experiment
def adam() -> AdamW:
    return AdamW(
        peak_lr=1.5e-4 * BATCH / 256,
        warmup_steps=WARMUP_EPOCHS * PICTURES // BATCH,
        weight_decay=0.05,
        b1=0.9,
        b2=0.95,
        clip_norm=None,
    )


@experiment
def mae(patch: int, width: int, depth: int, heads: int, mesh: Mesh) -> Experiment:
    """The published recipe."""
    blocks = Blocks(width=width, depth=depth, heads=heads, remat="dots", dtype="bfloat16")
    return Experiment(
        towers={"image": encoder(patch, 224, blocks, pooling="cls", mean=MEAN, std=STD)},
        objectives={"masked": masked()},
        data=imagenet(),
        optimizer=adam(),
        batch_size=BATCH,
        steps=EPOCHS * PICTURES // BATCH,
        mesh=mesh,
    )


@experiment
def vit_b16() -> Experiment:
    """111,655,680 parameters, 85,647,360 of them the encoder's; fixed positions, which are computed, aren't counted."""
    return mae(16, 768, 12, 12, Mesh())


@experiment
def vit_l16() -> Experiment:
    """329,239,296 parameters, 303,099,904 of them the encoder's."""
    return mae(16, 1_024, 24, 16, Mesh(fsdp=8))


@experiment
def vit_h14() -> Experiment:
    """656,613,964 parameters, 630,435,840 of them the encoder's."""
    return mae(14, 1_280, 32, 16, Mesh(fsdp=8))


@experiment
def tiny() -> Experiment:
    """The same on the demo data, its pictures 64 pixels wide; probed by the mean of all tokens."""
    decoder = Decoder(blocks=Blocks(width=64, depth=2, heads=4, remat="dots"))
    return Experiment(
        towers={"image": encoder(8, 64, Blocks(width=128, depth=4, heads=4, remat="dots"), pooling="mean")},
        objectives={"masked": MaskedImage(decoder=decoder, keep=0.25)},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={"image": (Decode(), RandomResizedCrop(64, area=(0.2, 1.0)), RandomFlip())},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05, b2=0.95),
        batch_size=64,
        steps=400,
        evaluators=[Probe(label="group")],
        save_every=100,
    )
