"""A tiny experiment on tiny data: coloured shapes, their names, and a beep for each; an epoch is a few steps.

mmjax train tests/tiny.py --workdir DIR data.sources.shapes.table=TABLE
"""

import colorsys
import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageDraw

from mmjax.data import CropOrPad, Decode, DecodeAudio, Folder, Label, Mixture, Numbers, Resize, SentencePiece, Tokenize
from mmjax.evaluate import Accuracy, Gallery, Losses, RegressionErrors, Reranked, Retrieval, ZeroShot
from mmjax.experiment import Experiment, experiment
from mmjax.models import AudioTransformer, Blocks, Cross, Decoder, LogMel, Merged, TextTransformer, ViT
from mmjax.objectives import (
    Classify,
    Contrastive,
    MaskedImage,
    MaskedText,
    Matching,
    MetricLearning,
    MomentumContrastive,
    Regress,
)
from mmjax.optim import AdamW, GradNorm

COLOURS = ("red", "yellow", "green", "cyan", "blue", "pink")
SHAPES = ("disc", "square", "bar", "cross")
SIDE, RATE, SAMPLES = 16, 16_000, 1_600
SPLITS = ("train", "train", "train", "validation", "test")  # of the five drawings of a colour and shape


def write_shapes(folder: Path) -> str:
    """Draws and plays everything into `folder`; gives the table's path. Two test examples have no sound."""
    rng = np.random.default_rng(0)
    rows = []
    for c, colour in enumerate(COLOURS):
        for s, shape in enumerate(SHAPES):
            for drawing, split in enumerate(SPLITS):
                name = f"{colour}-{shape}-{drawing}"
                draw(c, s, rng).save(folder / f"{name}.png")
                time = np.arange(int(SAMPLES * rng.uniform(0.7, 1.0))) / RATE
                wave = np.sin(2 * np.pi * 300 * 1.35**c * time) + np.sin(2 * np.pi * 2000 * 1.3**s * time)
                soundfile.write(folder / f"{name}.wav", 0.3 * wave, RATE)
                silent = split == "test" and (c, s) in ((0, 0), (3, 2))
                rows.append((f"{name}.png", "" if silent else f"{name}.wav", f"a {colour} {shape}", shape, split))
    with (folder / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "audio", "text", "shape", "split"), *rows])
    return str(folder / "shapes.csv")


def draw(colour: int, shape: int, rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    fill = tuple(int(255 * x) for x in colorsys.hsv_to_rgb(colour / len(COLOURS), 1, rng.uniform(0.8, 1)))
    left, top = rng.integers(0, 4, 2)
    pen = ImageDraw.Draw(picture)
    box = [left, top, left + 11, top + 11]
    if SHAPES[shape] == "disc":
        pen.ellipse(box, fill)
    elif SHAPES[shape] == "square":
        pen.rectangle(box, fill)
    if SHAPES[shape] in ("bar", "cross"):
        pen.rectangle([left, top + 4, left + 11, top + 7], fill)
    if SHAPES[shape] == "cross":
        pen.rectangle([left + 4, top, left + 7, top + 11], fill)
    return picture


@experiment
def tiny() -> Experiment:
    """Three modalities, two contrastive pairs and a masked loss."""
    size: dict[str, Any] = dict(width=32, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=4, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=16),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=16),
            "audio": AudioTransformer(
                spectrogram=LogMel(mels=32),
                patch=(2, 32),
                samples=SAMPLES,
                pooling="mean",
                blocks=Blocks(**size),
                embed_dim=16,
            ),
        },
        objectives={
            "image_text": Contrastive(("image", "text")),
            "text_audio": Contrastive(("text", "audio")),
            "masked_image": MaskedImage(decoder=Decoder(blocks=Blocks(width=16, depth=1, heads=2, remat=None))),
        },
        weights={"masked_image": 0.5},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
                "audio": (DecodeAudio(RATE), CropOrPad(SAMPLES)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2, warmup_steps=4, weight_decay=0.01),
        batch_size=16,
        steps=24,
        log_every=5,
        save_every=8,
        evaluate_every=12,
        evaluators=[
            Retrieval(),
            ZeroShot("shape"),
            Retrieval(split="test", when="end"),
            Gallery(rows=3),
        ],
    )


@experiment
def pair() -> Experiment:
    """Pictures and captions, for what is not about learning."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={"image_text": Contrastive(("image", "text"))},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=16,
        steps=2,
    )


@experiment
def unjudged(evaluators: Any = ()) -> Experiment:
    """Pictures and captions, with random masks, for what takes several processes; no evaluator needs to be compiled."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={
            "image_text": Contrastive(("image", "text")),
            "masked_image": MaskedImage(decoder=Decoder(blocks=Blocks(width=16, depth=1, heads=2, remat=None))),
        },
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=3e-3, warmup_steps=4, weight_decay=0.01),
        batch_size=16,
        steps=20,
        log_every=1,
        save_every=10,
        evaluators=evaluators,
    )


@experiment
def couple() -> Experiment:
    """The same with evaluators, which judge it at its end."""
    return unjudged([Retrieval(split="test"), ZeroShot("shape", split="test"), Gallery(rows=2)])


@experiment
def reading() -> Experiment:
    """Pictures and captions that are read together: the shape as a label, matching, and masked words."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=16, blocks=Blocks(**size), embed_dim=8),
        },
        fusions={
            "both": Merged(blocks=Blocks(dropout=0.1, **size), drop_inputs=0.2),
            "reader": Cross(reader="text", blocks=Blocks(**size)),
        },
        objectives={
            "image_text": Contrastive(("image", "text")),
            "shape": Classify("shape", len(SHAPES), ("image", "text"), fusion="both"),
            "match": Matching("reader"),
            "words": MaskedText(vocab=64, fusion="reader", beside=("image",)),
        },
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=16),),
                "shape": (Label(SHAPES),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2, warmup_steps=4, weight_decay=0.01),
        batch_size=16,
        steps=150,
        log_every=50,
        save_every=50,
        keep=3,
        evaluators=[
            Retrieval(same="text"),
            Losses(batches=2),
            Accuracy("shape", without_each=True),
            Reranked("match", top=3, same="text", when="always"),
        ],
    )


@experiment
def measuring() -> Experiment:
    """Two numbers of a picture, the places of its colour and shape; and pictures of one shape near each other."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={"image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8)},
        objectives={
            "places": Regress("places", ("image",), targets=2, offset=(2.5, 1.5), scale=(1.7, 1.1), hidden=16),
            "alike": MetricLearning(("image",), "shape"),
        },
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={"image": (Decode(), Resize(SIDE)), "places": (Numbers(2),), "shape": (Label(SHAPES),)},
        ),
        optimizer=AdamW(peak_lr=1e-2, warmup_steps=4),
        batch_size=16,
        steps=60,
        log_every=20,
        evaluators=[RegressionErrors("places"), Losses(batches=2)],
    )


@experiment
def taught() -> Experiment:
    """Pictures and captions by the keys of a teacher, those of earlier batches among them."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={"image_text": MomentumContrastive(("image", "text"), queue=32, ramp_steps=3)},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=16,
        steps=6,
        ema=0.9,
        log_every=1,
        save_every=1,
        keep=6,
    )


@experiment
def normed() -> Experiment:
    """Two losses, balanced by the norms of their gradients."""
    size: dict[str, Any] = dict(width=16, depth=1, heads=2, remat=None)  # sooner compiled
    return Experiment(
        towers={
            "image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={
            "image_text": Contrastive(("image", "text")),
            "masked_image": MaskedImage(decoder=Decoder(blocks=Blocks(width=16, depth=1, heads=2, remat=None))),
        },
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(SIDE)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=16,
        steps=6,
        log_every=1,
        save_every=3,
        evaluators=[Losses(batches=1)],
        balance=GradNorm(alpha=0.5),
    )
