"""VideoCLIP: contrast of videos and of what is said at about the same time (Xu et al. 2021, arXiv:2109.14084).

    mmjax train experiments/videoclip.py:base --workdir /mnt/bucket/videoclip    # videos with subtitles, of your own
    mmjax train experiments/videoclip.py:tiny --workdir runs/videoclip_tiny      # minutes on a CPU, on the demo data

A text of up to 61 words is cut out of what is said, and seconds of the video about a time at which it is said, so that
both overlap, and neither begins or ends with the other. The tokens of each are encoded, and their means contrasted.
HowTo100M isn't downloaded: `howto100m` is a folder of videos, with subtitles beside them. What differs from the
released code: a frame a second is read by an image tower of CLIP's, which doesn't train, where there S3D's features of
each second are read; the towers start from scratch, there from BERT's layers; vectors of length 1 and a learned scale
are contrasted, where there it is the vectors as they are; a text is counted in words, not in pieces.
There 16 windows of each of 32 videos, which are looked for among those that the towers take for alike, make a batch,
so that wrong partners are hard: these retrieved batches are left out here, and a batch has one window of a video.
The numbers of words, seconds, layers and epochs are the released configuration's; that of videos is from memory.
"""

from typing import Any

from mmjax.data import (
    CenterCrop,
    CutOverlapping,
    Decode,
    DecodeVideo,
    EachFrame,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    Resize,
    ResizeShorter,
    SentencePiece,
    Tokenize,
    VideoFolder,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, Frames, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

VIDEOS, EPOCHS, BATCH = 1_100_000, 25, 512
SECONDS, LENGTH, PIECES = 32, 64, 30_522
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIG: dict[str, Any] = {"width": 768, "heads": 12, "inits": "bert", "remat": "full", "dtype": "bfloat16"}
CLIP: dict[str, Any] = {"width": 768, "heads": 12, "activation": "quick_gelu", "norm_eps": 1e-5, "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "remat": "dots"}
TINY_SIDE, TINY_FRAMES, TINY_PIECES, TINY_LENGTH = 64, 4, 1_024, 32


@experiment
def base() -> Experiment:
    """238,555,393 parameters; the 87,456,000 of CLIP's image tower don't train."""
    frame = ViT(
        patch=32, size=224, cls=True, pooling="cls", pre_norm=True, stem_bias=False,
        mean=MEAN, std=STD, blocks=Blocks(depth=12, **CLIP),
    )  # fmt: skip
    words = Tokenize(SentencePiece(PIECES, name="howto100m"), LENGTH, bos=True)
    return Experiment(
        towers={
            "video": Frames(frame=frame, frames=SECONDS, blocks=Blocks(depth=6, **BIG)),
            "text": TextTransformer(vocab=PIECES, length=LENGTH, pooling="mean", blocks=Blocks(depth=12, **BIG)),
        },
        objectives={"contrastive": Contrastive(("video", "text"))},
        data=Mixture(
            {"howto100m": 1.0},
            sources={"howto100m": VideoFolder("howto100m")},
            record_transforms=(CutOverlapping(seconds=(3, SECONDS), words=(8, 61)),),
            transforms={
                "video": (
                    DecodeVideo(SECONDS, rate=1, short_side=224),
                    EachFrame((ResizeShorter(224), CenterCrop(224))),
                ),
                "text": (PickCaption(), Lowercase(), words),
            },
            workers=32,
        ),
        optimizer=AdamW(
            peak_lr=5e-5,
            warmup_steps=1_000,
            schedule="linear",
            b2=0.98,
            clip_norm=2.0,
            frozen=("^towers_video/frame/",),
        ),
        batch_size=BATCH,
        steps=EPOCHS * VIDEOS // BATCH,
        mesh=Mesh(fsdp=8),
        init={"towers.video.frame": Load("hf:openai/clip-vit-base-patch32", of="towers.image")},
        evaluators=[Retrieval()],
    )


@experiment
def tiny() -> Experiment:
    """Stories about emoji, a sentence or three of each; pictures with their names train the frames' tower too."""
    frame = ViT(patch=8, size=TINY_SIDE, cls=True, pooling="cls", blocks=Blocks(depth=3, **SMALL))
    words = Tokenize(SentencePiece(TINY_PIECES, name="stories"), TINY_LENGTH, bos=True)
    return Experiment(
        towers={
            "image": frame,
            "video": Frames(frame=frame, frames=TINY_FRAMES, blocks=Blocks(depth=1, **SMALL)),
            "text": TextTransformer(
                vocab=TINY_PIECES, length=TINY_LENGTH, pooling="mean", blocks=Blocks(depth=3, **SMALL)
            ),
        },
        objectives={"named": Contrastive(("image", "text")), "told": Contrastive(("video", "text"))},
        data=Mixture(
            {"spoken_emoji": 0.5, "emoji_stories": 0.5},
            record_transforms=(CutOverlapping(seconds=(2.0, 6.0), words=(4, 16)),),
            transforms={
                "image": (Decode(), Resize(TINY_SIDE), RandomAffine(translate=0.3, scale=(0.3, 0.8))),
                "video": (DecodeVideo(TINY_FRAMES), EachFrame((Resize(TINY_SIDE), RandomAffine(translate=0.05)))),
                "text": (PickCaption(), Lowercase(), words),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.2, b2=0.98),
        batch_size=64,
        steps=400,
        evaluators=[Retrieval(), Retrieval(split="test", when="end")],
        evaluate_every=100,
        save_every=100,
    )
