"""MERLOT Reserve: masked words and sounds of videos are found by what is seen (Zellers et al. 2022, arXiv:2201.02639).

    mmjax train experiments/reserve.py:base --workdir /mnt/bucket/reserve    # 1,024 windows a step, as published
    mmjax train experiments/reserve.py:tiny --workdir runs/reserve_tiny      # on the demo data

A window of a video is cut into segments, of each of which the middle frame is seen, and these into three sub-segments.
Of some the words and the sound are masked in the words that are read, of others the words in the sounds that are heard;
a joint transformer reads both with the frames, and finds what is masked among all that is masked in the batch.

The paper's videos are YT-Temporal-1B's, which aren't handed out: here `yt_temporal_1b` is a dataset of one's own, with
`video`, `words` and their times, a `title` and `random_text`, of the web. The paper stretches segments in which little
is said; these all last 5 seconds. Its optimiser keeps its moments in 16 bits, this one in 32.
"""

import math
from typing import Any

from mmjax.data import (
    CropFrame,
    CropOrPad,
    CutSubsegments,
    CutWindow,
    DecodeAudio,
    DecodeVideo,
    EachClip,
    EachFrame,
    Lowercase,
    MaskSpans,
    Mixture,
    ReserveStreams,
    SentencePiece,
    Tfds,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, LogMel, ReserveAudio, ReserveVision
from mmjax.objectives import Reserve
from mmjax.optim import AdamW

RATE, HOP = 22_050, 588
VOCAB, SPECIAL, TINY_VOCAB = 32_768, 10, 1_024
ALIKE: dict[str, Any] = {"activation": "quick_gelu", "norm_eps": 1e-5, "inits": "reserve", "out_bias": False}


@experiment
def towers(size: Any, frames: int, ratio: int, depths: tuple[int, int], blocks: Any, **pixels: Any) -> dict[str, Any]:
    """`frames`: of a clip's spectrogram; `ratio`: of the patches of two of them, those that are pooled."""
    mels = LogMel(RATE, 1_536, HOP, 1_536, 64, 20.0, None, "slaney", floor=0.1, mean=math.log(0.1))
    seen, heard = Blocks(depth=depths[0], **blocks), Blocks(depth=depths[1], **blocks)
    return {
        "video": ReserveVision(size=size, blocks=seen, **pixels),
        "audio": ReserveAudio(spectrogram=mels, samples=HOP * frames, ratio=ratio, blocks=heard),
    }


@experiment
def chains(tokenizer: Any, size: tuple[int, int], scale: Any, segments: int, frames: int, **streams: Any) -> Any:
    clips = 3 * segments
    return {
        "video": (DecodeVideo(segments, jitter=False), EachFrame((CropFrame(*size, scale),))),
        "audio": (EachClip((DecodeAudio(rate=RATE), CropOrPad(HOP * frames)), clips),),
        "words": (Lowercase(), ReserveStreams(tokenizer, segments, **streams)),
    }


@experiment
def published(width: int, depth: int, lr: float) -> Experiment:
    """Frames of 192 x 320 pixels, 16 of 5 seconds each, of which three times 1.6 are heard."""
    size, blocks = (192, 320), {"width": width, "heads": width // 64, "remat": "full", "dtype": "bfloat16", **ALIKE}
    tokenizer = SentencePiece(VOCAB - SPECIAL, name="yt_temporal_1b")
    of_video = chains(tokenizer, size, (1.05, 1.1), 16, 60, groups=2, length=160, matching_length=640)
    return Experiment(
        towers=towers(size, 60, 5, (depth, 12), blocks),
        objectives={"reserve": Reserve(vocab=VOCAB, blocks=Blocks(depth=depth, **blocks))},
        data=Mixture(
            {"yt_temporal_1b": 1.0},
            sources={"yt_temporal_1b": Tfds("yt_temporal_1b", fields={"web_text": "random_text"})},
            record_transforms=(CutWindow(80.0), CutSubsegments(before="title")),
            transforms={**of_video, "web_text": (Lowercase(), MaskSpans(tokenizer))},
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=lr,
            end_lr=0.02 * lr,
            warmup_steps=3_750,
            weight_decay=0.1,
            eps=1e-6,
            bias_correction=False,
            clip_norm=None,
        ),
        batch_size=1_024,
        steps=750_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def base() -> Experiment:
    """316,412,163 parameters."""
    return published(width=768, depth=12, lr=4e-4)


@experiment
def large() -> Experiment:
    """853,117,955 parameters."""
    return published(width=1_024, depth=24, lr=3e-4)


@experiment
def tiny() -> Experiment:
    """Four segments of 3.6 seconds of stories about the same 25 emoji, and no text of the web. Blocks start as
    Glorot's: by the paper's deviations, for a width of 768, what a block adds would be lost here. Frames are nearly
    white, and so are normalised. Of a batch's spans three fifths are said more than once: those match each other.
    """
    size, blocks = (64, 96), {"width": 128, "heads": 2, **ALIKE, "inits": "xavier"}
    tokenizer, streams = SentencePiece(TINY_VOCAB - SPECIAL, name="familiar_stories"), {"length": 64, "groups": 1}
    parts = towers(size, 36, 3, (2, 2), blocks, mean=(0.94, 0.94, 0.92), std=(0.15, 0.15, 0.18))
    found: dict[str, Any] = {"scale_init": 1 / 0.07, "equal_spans": True, "web_text": None, "grid": (2, 3)}
    return Experiment(
        towers=parts,
        objectives={"reserve": Reserve(vocab=TINY_VOCAB, span_depth=1, blocks=Blocks(depth=2, **blocks), **found)},
        data=Mixture(
            {"emoji_stories/familiar": 1.0},
            record_transforms=(CutWindow(14.4), CutSubsegments(segments=4, seconds=0.96)),
            transforms=chains(tokenizer, size, (1.0, 1.0), 4, 36, matching_length=88, prefer_spoken=True, **streams),
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.1, eps=1e-6),
        batch_size=32,
        steps=800,
        evaluators=[Losses(), Losses(split="test", when="end")],
        evaluate_every=200,
        save_every=200,
    )
