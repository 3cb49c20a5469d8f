"""VideoMAE: masked autoencoders of videos, nine tenths hidden in tubes (Tong et al. 2022, arXiv:2203.12602).

    mmjax train experiments/videomae.py:vit_b --workdir /mnt/bucket/videomae    # Kinetics-400, 800 epochs, as published
    mmjax train experiments/videomae.py:tiny --workdir runs/videomae_tiny       # minutes on a CPU, on the demo data

Tubelets of two frames and 16 x 16 pixels; what is hidden in one step of time is hidden in all, so that nothing can be
copied from the step before. Kinetics isn't downloaded: `kinetics400` is a folder of videos. Its number of videos, the
batch, the rate of frames and the crops are from memory, and no test asserts them.
"""

from typing import Any

from mmjax.data import (
    CutWindow,
    DecodeVideo,
    EachFrame,
    Mixture,
    RandomAffine,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    VideoFolder,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Decoder, TubeletViT
from mmjax.objectives import MaskedVideo
from mmjax.optim import AdamW

VIDEOS, EPOCHS, WARMUP_EPOCHS, BATCH = 240_000, 800, 40, 1_024
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES, RATE = 16, 7.5  # every fourth frame of 30 a second
BIG: dict[str, Any] = {"remat": "dots", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"remat": "dots"}


@experiment
def encoder(patch: int, frames: int, size: int, blocks: Blocks, **more: Any) -> TubeletViT:
    whole: dict[str, Any] = {"patch": (2, patch, patch), "frames": frames, "size": size}
    return TubeletViT(blocks=blocks, positions="sincos", pooling="mean", **whole, **more)


@experiment
def vit_b() -> Experiment:
    """94,222,080 parameters, 86,236,416 of them the encoder's: its keys have a bias, which the paper's code has not."""
    return Experiment(
        towers={
            "video": encoder(16, FRAMES, 224, Blocks(width=768, depth=12, heads=12, **BIG), mean=MEAN, std=STD),
        },
        objectives={"masked": MaskedVideo(decoder=Decoder(blocks=Blocks(width=384, depth=4, heads=6, **BIG)))},
        data=Mixture(
            {"kinetics400": 1.0},
            sources={"kinetics400": VideoFolder("kinetics400", shares={"train": 1.0})},
            record_transforms=(CutWindow(FRAMES / RATE),),
            transforms={
                "video": (
                    DecodeVideo(FRAMES, rate=RATE, short_side=256),
                    EachFrame((RandomResizedCrop(224, area=(0.5, 1.0)), RandomFlip())),
                )
            },
            workers=32,
        ),
        optimizer=AdamW(
            peak_lr=1.5e-4 * BATCH / 256,
            warmup_steps=WARMUP_EPOCHS * VIDEOS // BATCH,
            weight_decay=0.05,
            b1=0.9,
            b2=0.95,
            clip_norm=None,
        ),
        batch_size=BATCH,
        steps=EPOCHS * VIDEOS // BATCH,
        mesh=Mesh(),
    )


@experiment
def tiny() -> Experiment:
    """Two seconds of a story about emoji: eight frames of 64 pixels."""
    decoder = Decoder(blocks=Blocks(width=64, depth=2, heads=4, **SMALL))
    return Experiment(
        towers={"video": encoder(8, 8, 64, Blocks(width=128, depth=4, heads=4, **SMALL))},
        objectives={"masked": MaskedVideo(decoder=decoder)},
        data=Mixture(
            {"emoji_stories": 1.0},
            record_transforms=(CutWindow(2.0),),
            transforms={"video": (DecodeVideo(8, rate=4), EachFrame((Resize(64), RandomAffine(translate=0.1))))},
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05, b2=0.95),
        batch_size=64,
        steps=400,
        evaluators=[Losses()],
        save_every=100,
    )
