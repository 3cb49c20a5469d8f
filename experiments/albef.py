"""ALBEF: picture and text aligned before they are fused (Li et al. 2021, arXiv:2107.07651).

    mmjax train experiments/albef.py:base --workdir /mnt/bucket/albef     # 512 pairs a step, as published
    mmjax train experiments/albef.py:tiny --workdir runs/albef_tiny       # minutes on a CPU, on the demo data
    mmjax train experiments/albef.py:tiny_untaught --workdir runs/albef_untaught

One BERT in two halves: its first six layers read the caption alone, its last six attend to the picture's tokens too.
Three objectives: contrast of the two towers, matching with negatives that the towers take for right ones, and masked
words that are read with the picture. A teacher, the moving average of the model, gives the contrast its keys, which a
queue remembers, and softens the targets. Of the paper's four million pairs CC12M stands in for all; its towers start
from DeiT and BERT, these from scratch unless `init` says otherwise.
"""

from typing import Any

from mmjax.data import (
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Reranked, Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Cross, TextTransformer, ViT
from mmjax.objectives import Contrastive, MaskedText, Matching, MomentumContrastive
from mmjax.optim import AdamW

VOCAB, MASK = 30_522, 103  # of BERT's released vocabulary
EPOCH = 4_000_000 // 512
TINY_VOCAB, TINY_LENGTH, SIDE = 1_024, 28, 96
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "remat": "dots"}
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}
IMAGE: dict[str, Any] = {"cls": True, "pooling": "cls"}
TEXT: dict[str, Any] = {"types": 2, "position_std": 0.02, "pre_norm": True, "pooling": "cls", "projection_bias": True}


@experiment
def objectives(vocab: int, mask_id: int, ramp_steps: int, momentum: Any, **hardness: Any) -> dict[str, Any]:
    """Contrast, matching and masked words, each of weight 1; the teacher softens the targets of the first and last."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1, "norm_eps": 1e-12}
    taught: dict[str, Any] = {"alpha": 0.4, "ramp_steps": ramp_steps}
    return {
        "contrastive": MomentumContrastive(("image", "text"), **dict(momentum), **taught),
        "matching": Matching("reading", **hardness),
        "words": MaskedText(**drawn, tied=True, fusion="reading", beside=("image",), **taught),
    }


@experiment
def names(tokenizer: Any, length: int) -> tuple[Any, ...]:
    return (PickCaption(), Lowercase(), Tokenize(tokenizer, length, bos=True))


@experiment
def base() -> Experiment:
    """209,937,725 parameters: 86.0 million of the image tower, 123.3 million of BERT with its cross-attention."""
    half = Blocks(width=768, depth=6, heads=12, **BERT, **BIG)
    image = Blocks(width=768, depth=12, heads=12, norm_eps=1e-6, **BIG)
    pictures = (Decode(upright=False), RandomResizedCrop(256, area=(0.2, 1.0)), RandomFlip())
    return Experiment(
        towers={
            "image": ViT(patch=16, size=256, projection_bias=True, blocks=image, embed_dim=256, **IMAGE),
            "text": TextTransformer(vocab=VOCAB, length=512, blocks=half, embed_dim=256, **TEXT),
        },
        fusions={"reading": Cross(reader="text", blocks=half)},
        objectives=objectives(VOCAB, MASK, EPOCH, {"queue": 65_536}, within=64),
        data=Mixture(
            {"cc12m": 1.0},
            sources={"cc12m": Tfds("cc12m", fields={"text": "caption"})},
            transforms={"image": pictures, "text": names(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), 30)},
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-4, end_lr=1e-5, warmup_steps=2_000, weight_decay=0.02, b2=0.999, clip_norm=None),
        batch_size=512,
        steps=30 * EPOCH,
        ema=0.995,
        mesh=Mesh(fsdp=8),
    )


@experiment
def small(objectives: dict[str, Any], scale: dict[str, float], steps: int, every: int, ema: Any) -> Experiment:
    """The same on the demo data: an emoji of any size, somewhere in the picture, and its name; of pre-LN blocks."""
    image, half = Blocks(depth=3, **SMALL), Blocks(depth=2, **SMALL)
    pictures = (Decode(), Resize(SIDE), RandomAffine(translate=0.25, scale=(0.4, 1.0)))
    words = names(SentencePiece(TINY_VOCAB, name="spoken_emoji"), TINY_LENGTH)
    tested = [Retrieval(split="test", when="end"), Reranked("matching", top=16, split="test")]
    return Experiment(
        towers={
            "image": ViT(patch=12, size=SIDE, blocks=image, embed_dim=128, **IMAGE),
            "text": TextTransformer(vocab=TINY_VOCAB, length=TINY_LENGTH, pooling="cls", blocks=half, embed_dim=128),
        },
        fusions={"reading": Cross(reader="text", blocks=half)},
        objectives=objectives,
        data=Mixture({"spoken_emoji": 1.0}, transforms={"image": pictures, "text": words}),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05, scale=scale),
        batch_size=128,
        steps=steps,
        ema=ema,
        evaluators=[Retrieval(), Reranked("matching", top=16), *tested],
        evaluate_every=every,
        save_every=every,
    )


@experiment
def tiny() -> Experiment:
    """ALBEF itself. Negatives are drawn at 0.3: at 0.07 they are harder, and matching begins to learn later (after a
    hundred steps its loss is 0.61 instead of 0.56). In so few steps the teacher's soft targets teach the towers less
    than the pairs alone do (`tiny_untaught`)."""
    of = objectives(TINY_VOCAB, 4, 100, {"queue": 1_024, "partners": "id"}, temperature=0.3)
    # The temperature at the paper's rate: at 1e-3 it would fall to a third before the towers know anything.
    return small(of, {r"/temperature$": 0.1}, steps=400, every=200, ema=0.98)


@experiment
def tiny_untaught() -> Experiment:
    """Without teacher and queue: contrast within the batch, and the words as they are."""
    of = {
        "contrastive": Contrastive(("image", "text")),
        "matching": Matching("reading", temperature=0.1),
        "words": MaskedText(TINY_VOCAB, mask_id=4, first_id=5, tied=True, fusion="reading", beside=("image",)),
    }
    return small(of, {}, steps=1_000, every=250, ema=None)
