"""ViLT: one transformer over words and patches, and no tower before it (Kim et al. 2021, arXiv:2102.03334).

    mmjax train experiments/vilt.py:b32 --workdir /mnt/bucket/vilt     # batch 4,096, 100,000 steps, as published
    mmjax train experiments/vilt.py:tiny --workdir runs/vilt_tiny      # minutes on a CPU, on the demo data

The towers have no blocks: words are a table with positions and a LayerNorm, patches a linear map with positions. All
that follows is a `Merged` fusion, which reads two sequences of each example: its text with its own picture or another
one, for matching and the alignment of words and patches, and its text with words hidden beside its own picture.
What differs from the released code: pictures are scaled to squares, 144 patches of which all are read (there their
shape stays, and 200 patches at most); nothing starts from a ViT of ImageNet; the table of words and the matrix of the
masked words' head are one, as in Hugging Face's class; attention's weights are not dropped out. The four data sets are
TFDS datasets of one's own making, weighed by their captions. The vocabulary is BERT's: see `bert.py`.
"""

from typing import Any

from mmjax.data import (
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Merged, TextTransformer, ViT
from mmjax.objectives import MaskedText, WordPatchAlignment
from mmjax.optim import AdamW

VOCAB, MASK = 30_522, 103  # of the released vocabulary
TINY_VOCAB, TINY_MASK = 1_024, 4
MILLIONS = {"coco_pairs": 0.57, "visual_genome": 5.41, "conceptual_captions": 3.01, "sbu": 0.87}  # of captions
NORM_EPS = 1e-12  # of the words' LayerNorm and of the head, as in BERT
UNDECAYED = (r"(^|/)(bias|scale)$",)


@experiment
def towers(patch: int, size: int, vocab: int, length: int, width: int, heads: int, **more: Any) -> dict[str, Any]:
    """Embeddings alone."""
    none = Blocks(width=width, depth=0, heads=heads, norm_eps=NORM_EPS, inits="bert", **more)
    tables: dict[str, Any] = {"position_std": 0.02, "pooling": "mean", "blocks": none}
    return {
        "text": TextTransformer(vocab=vocab, length=length, types=2, pre_norm=True, **tables),
        "image": ViT(patch=patch, size=size, cls=True, **tables),
    }


@experiment
def stream(width: int, depth: int, heads: int, **more: Any) -> Merged:
    """The transformer, whose embedding is the pooler's: the tanh of a map of [CLS], the first of the words."""
    blocks = Blocks(width=width, depth=depth, heads=heads, **more)
    return Merged(blocks=blocks, pooling="first", embed_dim=width, projection_tanh=True)


@experiment
def objectives(vocab: int, mask_id: int) -> dict[str, Any]:
    ids: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1}
    beside: dict[str, Any] = {"fusion": "stream", "beside": ("image",)}
    return {
        "matching": WordPatchAlignment("stream", negatives="random", half_right=True, weight=0.1),
        "masked": MaskedText(**ids, **beside, norm_eps=NORM_EPS, tied=True),
    }


@experiment
def pairs() -> Mixture:
    return Mixture(
        MILLIONS,
        transforms={
            "text": (PickCaption(), Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), 40, bos=True)),
            "image": (Decode(upright=False), Resize(384)),
        },
        sources={name: Tfds(name, fields={"text": "caption"}) for name in MILLIONS},
        workers=16,
    )


@experiment
def b32() -> Experiment:
    """111,595,008 parameters, and 624,188 of the heads."""
    return Experiment(
        towers=towers(32, 384, VOCAB, 40, 768, 12, dropout=0.1, dtype="bfloat16"),
        fusions={"stream": stream(768, 12, 12, inits="bert", dropout=0.1, remat="dots", dtype="bfloat16")},
        objectives=objectives(VOCAB, MASK),
        data=pairs(),
        optimizer=AdamW(
            peak_lr=1e-4,
            end_lr=0.0,
            warmup_steps=10_000,
            schedule="linear",
            weight_decay=0.01,
            b2=0.98,
            no_decay=UNDECAYED,
        ),
        batch_size=4_096,
        steps=100_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def tiny() -> Experiment:
    """The same on the demo data, its pictures 32 pixels wide: half of the pairs are right, at random."""
    words = Tokenize(SentencePiece(TINY_VOCAB, name="spoken_emoji"), 16, bos=True)
    return Experiment(
        towers=towers(8, 32, TINY_VOCAB, 16, 96, 4),
        fusions={"stream": stream(96, 2, 4)},
        objectives=objectives(TINY_VOCAB, TINY_MASK),
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "text": (PickCaption(), Lowercase(), words),
                "image": (Decode(), RandomResizedCrop(32, area=(0.7, 1.0))),
            },
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.01, b2=0.98, no_decay=UNDECAYED),
        batch_size=128,
        steps=600,
        evaluators=[Losses(batches=4), Losses(split="test", batches=16, when="end")],
        evaluate_every=200,
        save_every=200,
    )
