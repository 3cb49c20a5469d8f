"""SCST: a captioner trained by the score that it is judged by (Rennie et al. 2016, arXiv:1612.00563).

    mmjax train experiments/show_and_tell.py:show_and_tell --workdir runs/show_and_tell   # cross-entropy comes first
    mmjax train experiments/scst.py:fc --workdir /mnt/bucket/scst
    mmjax train experiments/show_and_tell.py:tiny --workdir runs/show_and_tell_tiny
    mmjax train experiments/scst.py:tiny --workdir runs/scst_tiny                 # minutes on a CPU, on the demo data
    mmjax train experiments/scst.py:tiny_others --workdir runs/scst_tiny_others   # compared with the other samples
    mmjax train experiments/scst.py:tiny_words --workdir runs/scst_tiny_words     # further steps of cross-entropy

Of each picture five captions are drawn, and those become likelier that have a higher CIDEr-D than the one that the
model would write. The learning rate, the five samples and the locked tower are those of the released code for its
captioner of one vector a picture (FC), which starts after 30 epochs of cross-entropy. Here Show and Tell stands for it:
tower and start are that file's. Batch and number of steps are ours.
"""

from typing import Any

from mmjax.data import (
    Decode,
    KeepCaptions,
    Lowercase,
    Mixture,
    PickCaption,
    Resize,
    SentencePiece,
    Tfds,
    Tokenize,
    TokenizeReferences,
)
from mmjax.evaluate import Captions
from mmjax.experiment import Experiment, Load, experiment
from mmjax.models import LinearProjector, RecurrentDecoder, ResNet
from mmjax.objectives import Caption, SelfCritical
from mmjax.optim import AdamW

IMAGES = 82_783  # COCO's training images of 2014
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LOCKED = (r"^towers_image/",)


@experiment
def fc() -> Experiment:
    """From the captioner `runs/show_and_tell`."""
    start = Load("runs/show_and_tell")
    decoder = RecurrentDecoder(
        vocab=12_000, length=40, width=512, embed_width=512, prefix={"image": LinearProjector()}, forget_bias=1.0
    )
    words = TokenizeReferences(SentencePiece(12_000, path=""), 40, most=5)
    return Experiment(
        towers={"image": ResNet(layers=(3, 4, 6, 3), size=224, embed_dim=1_024, mean=MEAN, std=STD)},
        objectives={"caption": SelfCritical(decoder, ("image",), samples=5, most=20)},
        data=Mixture(
            {"coco_captions": 1.0},
            sources={"coco_captions": Tfds("coco_captions", fields={"text": "captions/text"})},
            transforms={
                "image": (Decode(upright=False), Resize(224)),
                "text": (KeepCaptions(), Lowercase(), words),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=5e-5, schedule="constant", b2=0.999, clip_norm=None, frozen=LOCKED),
        batch_size=64,
        steps=30 * IMAGES // 64,
        init={"towers.image": start, "objectives.caption": start},
    )


@experiment
def small(objective: Any, text: Any) -> Experiment:
    """From the captioner `runs/show_and_tell_tiny`, whose tower is locked now."""
    start = Load("runs/show_and_tell_tiny")
    return Experiment(
        towers={"image": ResNet(layers=(1, 1, 1, 1), width=16, size=96, embed_dim=128)},
        objectives={"caption": objective},
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"text": "captions", "captions": "captions"})},
            transforms={"image": (Decode(), Resize(96)), "text": text},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=3e-4, warmup_steps=10, clip_norm=1.0, frozen=LOCKED),
        batch_size=64,
        steps=200,
        evaluators=[Captions("caption", split="test", when="end")],
        save_every=100,
        init={"towers.image": start, "objectives.caption": start},
    )


@experiment
def captioner() -> RecurrentDecoder:
    return RecurrentDecoder(
        vocab=128, length=64, width=128, embed_width=128, prefix={"image": LinearProjector()}, attention_width=64
    )


@experiment
def critical(baseline: Any) -> Experiment:
    words = TokenizeReferences(SentencePiece(128, name="described_emoji"), 64, most=5)
    objective = SelfCritical(captioner(), ("image",), samples=5, baseline=baseline, most=63, ngrams=2**16)
    return small(objective, (KeepCaptions(), Lowercase(), words))


@experiment
def tiny() -> Experiment:
    return critical("greedy")


@experiment
def tiny_others() -> Experiment:
    return critical("others")


@experiment
def tiny_words() -> Experiment:
    words = Tokenize(SentencePiece(128, name="described_emoji"), 64, bos=True)
    return small(Caption(captioner(), reads=("image",), alone=True), (PickCaption(), Lowercase(), words))
