"""AudioMAE: masked autoencoders that listen (Huang et al. 2022, arXiv:2207.06405).

    mmjax train experiments/audiomae.py:vit_b --workdir /mnt/bucket/audiomae     # batch 512, 33 epochs, as published
    mmjax train experiments/audiomae.py:tiny --workdir runs/audiomae_tiny        # minutes on a CPU, on the demo data

A fifth of a spectrogram's patches is encoded, and a decoder that attends within windows rebuilds the others. The frames
beyond the end of a clip count as sound, as there. Of AudioSet, which can't be had as a whole, a table lists what one
has: `audioset/clips.csv`, with a column `audio` of paths.

The released code also rolls each waveform in time, but by the number of its channels, which moves nothing; and it draws
the loudness from a beta distribution, of which 95 % lie within the two decibels here.
"""

from typing import Any

from mmjax.data import CropOrPad, DecodeAudio, Folder, Mixture, PickUtterance, RandomGain
from mmjax.evaluate import Probe
from mmjax.experiment import Experiment, experiment
from mmjax.models import AudioTransformer, Blocks, Decoder, KaldiFbank
from mmjax.objectives import MaskedAudio
from mmjax.optim import AdamW

CLIPS, EPOCHS, WARMUP_EPOCHS, BATCH = 2_000_000, 33, 3, 512  # about two million clips, each of ten seconds
SAMPLES = 164_080  # 1,024 frames of 25 ms, 10 ms apart, at 16 kHz
SPOKEN = 54_400  # 3.4 s: the longest of 95 % of the demo's utterances


@experiment
def encoder() -> AudioTransformer:
    """For fine-tuning on AudioSet `embed_dim=527` and `projection_bias=True` make it a classifier."""
    return AudioTransformer(
        spectrogram=KaldiFbank(mels=128, shape="hann", mean=-4.2677393, std=2 * 4.5689974),
        samples=SAMPLES,
        patch=(16, 16),
        attend_padding=True,
        blocks=Blocks(width=768, depth=12, heads=12, remat="dots", dtype="bfloat16"),
        positions="sincos",
        cls=True,
        pooling="mean",
    )


@experiment
def decoder(width: int, depth: int, heads: int, **more: Any) -> Decoder:
    blocks = Blocks(width=width, depth=depth, heads=heads, remat="dots", **more)
    return Decoder(blocks=blocks, window=(4, 4), shift=(2, 0))


@experiment
def vit_b() -> Experiment:
    """136,336,128 parameters, 85,254,144 of them the encoder's."""
    return Experiment(
        towers={"audio": encoder()},
        objectives={
            "masked": MaskedAudio(
                decoder=decoder(width=512, depth=16, heads=16, dtype="bfloat16"),
                keep=102 / 512,  # a fifth, rounded down
            )
        },
        data=Mixture(
            {"audioset": 1.0},
            sources={"audioset": Folder("audioset/clips.csv", shares={"train": 1.0})},
            transforms={"audio": (DecodeAudio(), RandomGain(2.0), CropOrPad(SAMPLES))},
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=2e-4 * BATCH / 256,
            warmup_steps=WARMUP_EPOCHS * CLIPS // BATCH,
            weight_decay=1e-4,
            b1=0.9,
            b2=0.95,
            clip_norm=None,
        ),
        batch_size=BATCH,
        steps=EPOCHS * CLIPS // BATCH,
    )


@experiment
def tiny() -> Experiment:
    """The same on the demo data, and padding is not heard: its utterances are shorter than 3.4 s, most by far."""
    return Experiment(
        towers={
            "audio": AudioTransformer(
                spectrogram=KaldiFbank(mean=-6.05, std=2 * 4.49),  # measured on the training split
                samples=SPOKEN,
                patch=(16, 16),
                blocks=Blocks(width=128, depth=4, heads=4, remat="dots"),
                positions="sincos",
                cls=True,
                pooling="mean",
            )
        },
        objectives={"masked": MaskedAudio(decoder=decoder(width=64, depth=4, heads=4), keep=0.2)},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={"audio": (PickUtterance(), DecodeAudio(), RandomGain(2.0), CropOrPad(SPOKEN))},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=1e-4, b2=0.95),
        batch_size=64,
        steps=400,
        evaluators=[Probe(label="group", modality="audio")],
        save_every=100,
    )
