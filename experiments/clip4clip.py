"""CLIP4Clip: the towers of CLIP, that read a video frame by frame (Luo et al. 2021, arXiv:2104.08860).

    mmjax train experiments/clip4clip.py:mean --workdir /mnt/bucket/clip4clip        # MSR-VTT, from OpenAI's ViT-B/32
    mmjax train experiments/clip4clip.py:sequential --workdir /mnt/bucket/clip4clip  # the frames in their order
    mmjax train experiments/clip4clip.py:tiny --workdir runs/clip4clip_tiny          # minutes on a CPU, demo data

A video's embedding is the mean of its frames', or of what a transformer makes of these in their order. The towers start
from CLIP's. MSR-VTT isn't downloaded: `msrvtt/captions.csv` is a table of your own, with the columns `video` (paths),
`text` and `split`. Twelve frames, one a second, and captions of 32 tokens are the paper's; rates and the batch of
`published` are from memory, and no test asserts them.
"""

from typing import Any

from mmjax.data import (
    CenterCrop,
    Decode,
    DecodeVideo,
    EachFrame,
    Folder,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    Resize,
    ResizeShorter,
    SentencePiece,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, Frames, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

SECONDS, LENGTH, STEPS = 12, 32, 5 * 180_000 // 128
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP: dict[str, Any] = {"activation": "quick_gelu", "norm_eps": 1e-5, "remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "remat": "dots"}
PIECES, WORDS, SIDE, FRAMES = 1_024, 48, 64, 6


@experiment
def published(over_time: Any, **more: Any) -> Experiment:
    """CLIP's ViT-B/32, its text tower, and a video tower that has no parameters but those over time."""
    frame = ViT(
        patch=32,
        size=224,
        cls=True,
        pooling="cls",
        pre_norm=True,
        stem_bias=False,
        embed_dim=512,
        mean=MEAN,
        std=STD,
        blocks=Blocks(width=768, depth=12, heads=12, **CLIP),
    )
    reading = Blocks(width=512, depth=12, heads=8, inits="clip", **CLIP)
    return Experiment(
        towers={
            "video": Frames(frame=frame, unit=True, blocks=over_time, **more),
            "text": TextTransformer(
                vocab=49_408, length=77, embed_dim=512, causal=True, pooling="last", blocks=reading
            ),
        },
        objectives={"contrastive": Contrastive(("video", "text"))},
        data=Mixture(
            {"msrvtt": 1.0},
            sources={"msrvtt": Folder("msrvtt/captions.csv")},
            transforms={
                "video": (
                    DecodeVideo(SECONDS, rate=1, short_side=224),
                    EachFrame((ResizeShorter(224), CenterCrop(224))),
                ),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(49_408, path=""), LENGTH, bos=True)),
            },
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=1e-4, warmup_steps=STEPS // 10, weight_decay=0.2, scale={"^towers_(video/frame|text)/": 1e-3}
        ),
        batch_size=128,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
        init={
            "towers.video.frame": Load("hf:openai/clip-vit-base-patch32", of="towers.image"),
            "towers.text": Load("hf:openai/clip-vit-base-patch32"),
        },
        evaluators=[Retrieval(split="test")],
    )


@experiment
def mean() -> Experiment:
    """The mean of the frames' unit vectors: no parameters beside CLIP's 151 million."""
    return published(None)


@experiment
def sequential() -> Experiment:
    """A transformer of four layers over the frames, added to them."""
    over_time = Blocks(width=512, depth=4, heads=8, inits="clip", **CLIP)
    return published(over_time, frames=SECONDS, residual=True)


@experiment
def tiny() -> Experiment:
    """From scratch, on pictures with their names and on stories about such emoji: both train the same frames' tower."""
    frame = ViT(patch=8, size=SIDE, cls=True, pooling="cls", embed_dim=128, blocks=Blocks(depth=3, **SMALL))
    over_time = Blocks(depth=1, **SMALL)
    return Experiment(
        towers={
            "image": frame,
            "video": Frames(frame=frame, unit=True, frames=FRAMES, residual=True, blocks=over_time),
            "text": TextTransformer(
                vocab=PIECES, length=WORDS, pooling="cls", embed_dim=128, blocks=Blocks(depth=3, **SMALL)
            ),
        },
        objectives={"named": Contrastive(("image", "text")), "told": Contrastive(("video", "text"))},
        data=Mixture(
            {"spoken_emoji": 0.5, "emoji_stories": 0.5},
            transforms={
                "image": (Decode(), Resize(SIDE), RandomAffine(translate=0.3, scale=(0.3, 0.8))),
                "video": (DecodeVideo(FRAMES), EachFrame((Resize(SIDE), RandomAffine(translate=0.05)))),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(PIECES, name="stories"), WORDS, bos=True)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.2, b2=0.98),
        batch_size=64,
        steps=400,
        evaluators=[Retrieval(), Retrieval(split="test", when="end")],
        evaluate_every=100,
        save_every=100,
    )
