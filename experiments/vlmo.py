"""VLMo: one transformer with experts of pictures, of texts, and of both (Bao et al. 2021, arXiv:2111.02358).

    mmjax train experiments/vlmo.py:base_plus --workdir /mnt/bucket/vlmo      # batch 1,024, 200,000 steps, as published
    mmjax train experiments/vlmo.py:tiny --workdir runs/vlmo_tiny             # minutes on a CPU, on the demo data

The same attention reads pictures, texts and pairs; a picture alone goes by its MLPs, a text by its own, and a pair by
both and, in the last layers, by one for all. Alone they are the two towers of a contrastive model; together they are
its fusion, for matching, with wrong partners that the towers take for right ones, and for masked words.
Pictures of `base` and `large` have relative positions alone. What differs from the released code:
contrast is of the ways' own embeddings, and not a second time of the last layers' common one; pieces of words are
hidden, not whole words; no layer is dropped. There the attention of pictures and then the text's MLPs are trained
first, here all starts together. The four data sets are TFDS datasets of one's own making, weighed by their captions.
"""

from typing import Any

from mmjax.data import (
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Reranked, Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, MultiwayTrunk, TextTransformer, ThroughTrunk, ViT
from mmjax.objectives import Contrastive, MaskedText, Matching
from mmjax.optim import AdamW

VOCAB, MASK, LENGTH, SIDE = 30_522, 103, 40, 224  # of BERT's released vocabulary
GRIDS = {"text": (LENGTH,), "image": (SIDE // 16, SIDE // 16)}
LEARNED, RELATIVE = ("learned", {}), ("none", GRIDS)  # the positions of patches, and relative ones of the trunk
TINY_VOCAB, TINY_MASK, TINY_LENGTH, TINY_SIDE = 1_024, 4, 28, 96
MILLIONS = {"coco_pairs": 0.57, "visual_genome": 5.41, "conceptual_captions": 3.01, "sbu": 0.87}  # of captions
STEPS, UNDECAYED = 200_000, (r"(^|/)(bias|scale)$",)
DECAY: dict[str, Any] = {"end_lr": 0.0, "schedule": "linear", "weight_decay": 0.01, "b2": 0.98, "no_decay": UNDECAYED}


@experiment
def parts(
    blocks: Blocks, joint: int, patch: int, size: int, vocab: int, length: int, types: int, places: Any
) -> dict[str, Any]:
    """Towers and fusion of one trunk; the fusion's own is the pooler, of the text's first token."""
    trunk = MultiwayTrunk(blocks=blocks, ways=("text", "image"), joint=joint, key_bias=False, relative=places[1])
    shared: dict[str, Any] = {"trunk": trunk, "pooling": "cls", "embed_dim": blocks.width, "position_std": 0.02}
    image = ViT(way="image", patch=patch, size=size, cls=True, positions=places[0], **shared)
    text = TextTransformer(way="text", vocab=vocab, length=length, types=types, pre_norm=True, **shared)
    together = ThroughTrunk(trunk=trunk, first="text", embed_dim=blocks.width, projection_tanh=True)
    return {"towers": {"image": image, "text": text}, "fusions": {"together": together}}


@experiment
def objectives(vocab: int, mask_id: int) -> dict[str, Any]:
    ids: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1}
    return {
        "contrastive": Contrastive(("image", "text")),
        "matching": Matching("together", pair=("text", "image")),
        "words": MaskedText(**ids, fusion="together", beside=("image",)),
    }


@experiment
def published(
    width: int, depth: int, heads: int, joint: int, layer_scale: float | None, rate: float, places: Any
) -> Experiment:
    blocks = Blocks(
        width=width, depth=depth, heads=heads, layer_scale=layer_scale, inits="bert", remat="full", dtype="bfloat16"
    )
    words = Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), LENGTH, bos=True)
    return Experiment(
        **parts(blocks, joint, 16, SIDE, VOCAB, LENGTH, types=2, places=places),
        objectives=objectives(VOCAB, MASK),
        data=Mixture(
            MILLIONS,
            transforms={
                "text": (PickCaption(), Lowercase(), words),
                "image": (Decode(upright=False), RandomResizedCrop(SIDE, area=(0.5, 1.0))),
            },
            sources={name: Tfds(name, fields={"text": "caption"}) for name in MILLIONS},
            workers=16,
        ),
        optimizer=AdamW(peak_lr=rate, warmup_steps=STEPS // 10, **DECAY),
        batch_size=1_024,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )


@experiment
def base_plus() -> Experiment:
    """166,863,840 parameters of trunk, embeddings and pooler, as published, and the heads."""
    return published(544, 24, 16, joint=3, layer_scale=None, rate=1e-4, places=LEARNED)


@experiment
def base() -> Experiment:
    """175,858,944 parameters as published, those of relative positions, and the heads."""
    return published(768, 12, 12, joint=2, layer_scale=0.1, rate=2e-4, places=RELATIVE)


@experiment
def large() -> Experiment:
    """562,161,664 parameters as published, those of relative positions, and the heads."""
    return published(1_024, 24, 16, joint=3, layer_scale=0.1, rate=5e-5, places=RELATIVE)


@experiment
def tiny() -> Experiment:
    """The same on the demo data: an emoji of any size, somewhere in the picture, and its name."""
    words = Tokenize(SentencePiece(TINY_VOCAB, name="spoken_emoji"), TINY_LENGTH, bos=True)
    return Experiment(
        **parts(Blocks(width=128, depth=3, heads=4), 1, 12, TINY_SIDE, TINY_VOCAB, TINY_LENGTH, 0, LEARNED),
        objectives=objectives(TINY_VOCAB, TINY_MASK),
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "text": (PickCaption(), Lowercase(), words),
                "image": (Decode(), Resize(TINY_SIDE), RandomAffine(translate=0.25, scale=(0.4, 1.0))),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05),
        batch_size=128,
        steps=400,
        evaluators=[Retrieval(), Reranked("matching", top=16)],
        evaluate_every=200,
    )
