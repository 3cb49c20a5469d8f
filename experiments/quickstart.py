"""Quickstart: image, text and audio in one space, on 3,943 emoji, in minutes on a laptop's CPU.

    mmjax train experiments/quickstart.py --workdir runs/quickstart
    mmjax train experiments/quickstart.py:contrastive_only --workdir runs/contrastive_only

Three small transformers learn from pictures of emoji, their English names, and those names spoken by many voices. All
three pairs are contrasted (CLIP's loss, Radford et al. 2021), while each modality is also rebuilt from a part of
itself (MAE, BERT, AudioMAE). The test is retrieval among emoji that training never shows, in voices it never hears.
"""

from typing import Any

from mmjax.data import (
    CropOrPad,
    Decode,
    DecodeAudio,
    Mixture,
    PickCaption,
    PickUtterance,
    RandomAffine,
    RandomTokenize,
    Resize,
    SentencePiece,
)
from mmjax.evaluate import Gallery, Retrieval, ZeroShot
from mmjax.experiment import Experiment, experiment
from mmjax.models import AudioTransformer, Blocks, Decoder, LogMel, TextTransformer, ViT
from mmjax.objectives import Contrastive, Keep, MaskedAudio, MaskedImage, MaskedText
from mmjax.optim import AdamW

PIXELS = 64
WORDS = 18  # pieces and the end: the longest of 95 % of the names
SAMPLES = 54_400  # 3.4 s at 16 kHz: the longest of 95 % of the utterances
VOCABULARY = 512
EMBEDDING: dict[str, Any] = {"pooling": "mean", "embed_dim": 128}


@experiment
def blocks(depth: int) -> Blocks:
    # So small, and so few, that what a loop over them copies costs more than compiling each.
    return Blocks(width=128, depth=depth, heads=4, activation="quick_gelu", remat=None, unroll=depth)


@experiment
def image_tower() -> ViT:
    return ViT(patch=16, size=PIXELS, blocks=blocks(4), **EMBEDDING)


@experiment
def text_tower() -> TextTransformer:
    return TextTransformer(vocab=VOCABULARY, length=WORDS, blocks=blocks(2), **EMBEDDING)


@experiment
def audio_tower() -> AudioTransformer:
    """A sound is strips of 94 ms, with all bands; the log-mel's mean and deviation are those of the training split."""
    log_mel = LogMel(hop=250, mean=-4.0, std=4.75)
    return AudioTransformer(spectrogram=log_mel, samples=SAMPLES, patch=(6, 64), blocks=blocks(4), **EMBEDDING)


@experiment
def decoder() -> Decoder:
    return Decoder(blocks=Blocks(width=64, depth=1, heads=2, remat="dots"))


@experiment
def spoken_emoji() -> Mixture:
    return Mixture(
        {"spoken_emoji": 1.0},
        transforms={
            "image": (Decode(), Resize(PIXELS), RandomAffine(translate=0.05, scale=(0.9, 1.1))),
            "text": (
                PickCaption(),
                RandomTokenize(SentencePiece(vocab_size=VOCABULARY, name="spoken_emoji"), WORDS, best=4),
            ),
            "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES)),
        },
        cache=True,
    )


@experiment
def contrastive(image: Keep, audio: Keep) -> dict[str, Contrastive]:
    """All three pairs, from a part of the pictures' and spectrograms' patches, as FLIP does (Li et al. 2022)."""
    return {
        "image_text": Contrastive(("image", "text"), masking={"image": image}),
        "text_audio": Contrastive(("text", "audio"), masking={"audio": audio}),
        "image_audio": Contrastive(("image", "audio"), masking={"image": image, "audio": audio}),
    }


@experiment
def optimizer(warmup_steps: int) -> AdamW:
    # At the others' rate a logit scale, which moves by as much a step at most, is still on its way at the end.
    return AdamW(peak_lr=2e-3, warmup_steps=warmup_steps, weight_decay=0.05, scale={"log_scale$": 5.0})


@experiment
def judges() -> list[Any]:
    return [
        Retrieval(split="validation"),
        ZeroShot(label="group", split="validation"),
        Retrieval(split="test", when="end"),
        ZeroShot(label="group", split="test", when="end"),
        ZeroShot(label="subgroup", split="test", when="end"),
    ]


@experiment
def quickstart() -> Experiment:
    # Of a sound four strips in five; of a long one, as a quarter of them are, no more than of one of 2.1 s.
    image, audio = Keep(0.75), Keep(0.8, most=18)
    return Experiment(
        towers={"image": image_tower(), "text": text_tower(), "audio": audio_tower()},
        objectives={
            # The masked objectives' own views: encoded once for both.
            **contrastive(image, audio),
            "masked_image": MaskedImage(decoder=decoder(), keep=image),
            "masked_audio": MaskedAudio(decoder=decoder(), keep=audio),
            "masked_text": MaskedText(vocab=VOCABULARY),
        },
        weights={"masked_image": 0.1, "masked_audio": 0.1, "masked_text": 0.1},
        data=spoken_emoji(),
        optimizer=optimizer(warmup_steps=40),
        batch_size=256,
        steps=640,
        evaluate_every=160,
        save_every=160,
        evaluators=[*judges(), Gallery(split="test")],
    )


@experiment
def contrastive_only() -> Experiment:
    """What the masked objectives are measured against: without them, from whole inputs, in the same time."""
    return Experiment(
        towers={"image": image_tower(), "text": text_tower(), "audio": audio_tower()},
        objectives=contrastive(Keep(1.0), Keep(1.0)),
        data=spoken_emoji(),
        optimizer=optimizer(warmup_steps=40),
        batch_size=256,
        steps=640,
        evaluate_every=160,
        save_every=160,
        evaluators=judges(),
    )
