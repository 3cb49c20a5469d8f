"""ImageBind: every modality is bound to images, and so to all others (Girdhar et al. 2023, arXiv:2305.05665).

    mmjax train experiments/imagebind.py:huge --workdir /mnt/bucket/imagebind   # sounds, to a frozen OpenCLIP ViT-H
    mmjax train experiments/imagebind.py:tiny --workdir runs/imagebind_tiny     # minutes on a CPU, on the demo data

Texts and sounds never meet in training; that they find each other is what `Retrieval` measures (text->audio,
audio->text). In `huge` the image and text towers are frozen, only sounds train, and their temperature is fixed. In
`tiny` all towers train, with learnt temperatures. Of the paper's six modalities three are here: images, texts, sounds.
AudioSet can't be had as a whole: `audioset/clips.csv` is a table with columns `image` (a frame) and `audio`.
"""

from typing import Any

from mmjax.data import (
    CleanText,
    CropOrPad,
    Decode,
    DecodeAudio,
    Folder,
    Lowercase,
    Mixture,
    PickCaption,
    PickUtterance,
    RandomFlip,
    RandomResizedCrop,
    SentencePiece,
    Subwords,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import AudioTransformer, Blocks, KaldiFbank, LogMel, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

OPENCLIP = "open_clip:ViT-H-14/laion2b_s32b_b79k"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SAMPLES = 32_880  # 204 frames at 16 kHz, 2 s


@experiment
def huge() -> Experiment:
    """1.07 billion parameters, of which the audio tower's 86 million train."""
    big: dict[str, Any] = {"dtype": "bfloat16", "remat": "full"}
    image = {"patch": 14, "size": 224, "pre_norm": True, "stem_bias": False, "mean": MEAN, "std": STD}
    audio = {"samples": SAMPLES, "patch": (16, 16), "stride": (10, 10)}
    embedding = {"cls": True, "pooling": "cls", "embed_dim": 1_024}
    return Experiment(
        towers={
            "image": ViT(blocks=Blocks(width=1_280, depth=32, heads=16, norm_eps=1e-5, **big), **image, **embedding),
            "text": TextTransformer(
                vocab=49_408,
                length=77,
                blocks=Blocks(width=1_024, depth=24, heads=16, inits="clip", norm_eps=1e-5, **big),
                causal=True,
                embed_dim=1_024,
            ),
            "audio": AudioTransformer(
                spectrogram=KaldiFbank(mean=-4.268, std=2 * 4.569),
                blocks=Blocks(width=768, depth=12, heads=12, **big),
                **audio,
                **embedding,
            ),
        },
        objectives={"image_audio": Contrastive(("image", "audio"), scale_init=20.0)},
        data=Mixture(
            {"audioset": 1.0},
            sources={"audioset": Folder("audioset/clips.csv")},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(224), RandomFlip()),
                "text": (PickCaption(), CleanText(), Lowercase(), Tokenize(Subwords(49_408), 77, bos=True)),
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(SAMPLES)),
            },
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=1.6e-3,
            warmup_steps=2_000,
            weight_decay=0.2,
            b2=0.95,
            frozen=(r"^towers_(image|text)/", r"^objectives_image_audio/log_scale$"),
        ),
        batch_size=2_048,
        steps=64 * 2_000_000 // 2_048,
        mesh=Mesh(fsdp=8),
        init={"towers.image": Load(OPENCLIP), "towers.text": Load(OPENCLIP)},
    )


@experiment
def blocks(depth: int) -> Blocks:
    return Blocks(width=128, depth=depth, heads=4, activation="quick_gelu", remat="dots")


@experiment
def tiny() -> Experiment:
    """Pictures with names, and pictures with sounds; never names with sounds."""
    embedding = {"pooling": "mean", "embed_dim": 128}
    log_mel = LogMel(hop=250, mean=-4.0, std=4.75)
    return Experiment(
        towers={
            "image": ViT(patch=16, size=64, blocks=blocks(4), **embedding),
            "text": TextTransformer(vocab=512, length=22, blocks=blocks(2), **embedding),
            "audio": AudioTransformer(
                spectrogram=log_mel, samples=54_400, patch=(6, 64), blocks=blocks(4), **embedding
            ),
        },
        objectives={
            "image_text": Contrastive(("image", "text")),
            "image_audio": Contrastive(("image", "audio")),
        },
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(512, name="spoken_emoji"), 22)),
                "audio": (PickUtterance(), DecodeAudio(), CropOrPad(54_400)),
            },
            cache=True,
        ),
        optimizer=AdamW(peak_lr=2e-3, warmup_steps=40, weight_decay=0.05, scale={"log_scale$": 5.0}),
        batch_size=256,
        steps=400,
        evaluators=[Retrieval(), Retrieval(split="test", when="end")],
        evaluate_every=200,
        save_every=200,
    )
