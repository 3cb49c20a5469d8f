"""Cap and CapPa: image captioners are scalable vision learners too (Tschannen et al. 2023, arXiv:2306.07915).

    mmjax train experiments/cap.py:cappa_b16 --workdir /mnt/bucket/cappa   # batch 8,192, 366,500 steps, as published
    mmjax train experiments/cap.py:tiny --workdir runs/cap_tiny            # CapPa; minutes on a CPU, on the demo data
    mmjax train experiments/cap.py:tiny_cap --workdir runs/cap_tiny_cap    # the same without parallel prediction

A picture's encoder learns from its captions alone: a decoder, which is thrown away, predicts their words from all its
patches. CapPa predicts three quarters of the captions at once, each word from its place and the picture, so that no
word can be guessed from those before it. What the encoder is worth, a linear probe on the mean of its patches says.

WebLI is private: LAION-400M stands in for it, with pieces trained on its captions. The last matrix starts at zero, so
the first loss is ln(vocab). Of the positions' initial deviation nothing is told; GPT-2's is taken.
"""

from typing import Any

from mmjax.data import Decode, Mixture, PickCaption, RandomResizedCrop, Resize, SentencePiece, Tfds, Tokenize
from mmjax.evaluate import Losses, Probe
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import Adafactor, AdamW

AT_ONCE = 0.75  # of the captions
PIECES, WORDS = 32_000, 64


@experiment
def captioner(vocab: int, words: int, parallel: float, blocks: DecoderBlocks) -> Caption:
    """One id more than pieces stands in the place of the words that are predicted at once; a caption has `words` of
    them, and a first one from which the first is predicted."""
    decoder = TextDecoder(
        vocab=vocab + 1,
        length=words,
        blocks=blocks,
        cross="within",
        context={"image": None},
        tied=False,
        zero_head=True,
        head_bias=True,
        token_std=1.0,
    )
    return Caption(decoder=decoder, reads=("image",), parallel=parallel, mask_id=vocab)


@experiment
def published(parallel: float) -> Experiment:
    big: dict[str, Any] = {"width": 768, "heads": 12, "remat": "full", "dtype": "bfloat16"}
    return Experiment(
        towers={"image": ViT(patch=16, size=224, pooling="mean", blocks=Blocks(**big, depth=12))},
        objectives={"caption": captioner(PIECES, WORDS, parallel, DecoderBlocks(**big, depth=6, bias=False))},
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), Resize(224)),
                "text": (
                    PickCaption(),
                    Tokenize(SentencePiece(PIECES, name="laion400m_cap"), WORDS + 1, bos=True),
                ),
            },
            workers=16,
        ),
        optimizer=Adafactor(peak_lr=1e-3, warmup_steps=10_000, weight_decay=1e-4, clip_norm=1.0),
        batch_size=8_192,
        steps=366_500,
        mesh=Mesh(fsdp=8),
    )


@experiment
def cappa_b16() -> Experiment:
    return published(AT_ONCE)


@experiment
def cap_b16() -> Experiment:
    return published(0.0)


@experiment
def small(parallel: float) -> Experiment:
    sizes: dict[str, Any] = {"width": 128, "heads": 4}
    return Experiment(
        towers={"image": ViT(patch=8, size=64, pooling="mean", blocks=Blocks(**sizes, depth=4))},
        objectives={"caption": captioner(1_024, 16, parallel, DecoderBlocks(**sizes, depth=2, bias=False))},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (PickCaption(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 17, bos=True)),
            },
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05, b2=0.95),
        batch_size=64,
        steps=400,
        evaluators=[Probe(label="group"), Losses()],
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    return small(AT_ONCE)


@experiment
def tiny_cap() -> Experiment:
    return small(0.0)
