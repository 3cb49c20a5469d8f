"""FLAVA: one model of pictures, of texts, and of both together (Singh et al. 2021, arXiv:2112.04482).

    mmjax train experiments/flava.py:base --workdir /mnt/bucket/flava      # 8,192 examples a step, as published
    mmjax train experiments/flava.py:tiny --workdir runs/flava_tiny        # minutes on a CPU, on the demo data

Two towers and a fusion of what they give before their last norms. Five objectives: contrast of the towers, matching,
words and patches hidden together (read by the fusion), and, of pictures and of texts that come alone, hidden patches
and hidden words (read by their tower). A hidden patch is predicted as a code: `pmd` and `imagenet` stand for TFDS
datasets of one's own making, with the 14 x 14 codes of DALL-E's tokenizer (of 112 x 112 pixels) for each picture, so
that pictures are never cropped at random. The English Wikipedia stands in for the texts. What differs from the released
code: a batch mixes the three kinds of data, where there batches take turns; matching reads whole pairs, half of them
wrong (there hidden ones, a tenth of them wrong); all texts are cut at 77 tokens; no tower is trained alone beforehand.
"""

from typing import Any

from mmjax.data import (
    Codes,
    ColourCodes,
    CopyInput,
    Decode,
    EmojiCharts,
    Lowercase,
    Mixture,
    PickCaption,
    Renamed,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Losses, Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, Merged, TextTransformer, ViT
from mmjax.objectives import (
    Contrastive,
    Corrupt,
    CorruptPatches,
    KeepOutsideBlocks,
    MaskedCodes,
    MaskedText,
    Matching,
    View,
)
from mmjax.optim import AdamW

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PATCH, SIDE, VOCAB, MASK, LENGTH, CODES = 16, 224, 30_522, 103, 77, 8_192  # BERT's vocabulary, DALL-E's codes
TINY_PATCH, TINY_SIDE, TINY_VOCAB, TINY_MASK, TINY_LENGTH, LEVELS = 4, 32, 512, 4, 16, 4
STATES: dict[str, Any] = {"pooling": "cls", "norm_pooled": True, "projection_bias": True}  # tokens before the last norm
FUSED: dict[str, Any] = {"project": True, "kinds": False, "projection_tanh": True}  # the pooler is matching's
BIG: dict[str, Any] = {"width": 768, "heads": 12, "norm_eps": 1e-12, "inits": "bert", "remat": "full"}


@experiment
def towers(blocks: Blocks, patch: int, size: int, vocab: int, length: int, types: int) -> dict[str, Any]:
    shared: dict[str, Any] = {"blocks": blocks, "embed_dim": blocks.width, **STATES}
    return {
        "image": ViT(patch=patch, size=size, mean=MEAN, std=STD, cls=True, mask_token=True, **shared),
        "text": TextTransformer(vocab=vocab, length=length, types=types, position_std=0.02, pre_norm=True, **shared),
    }


@experiment
def objectives(vocab: int, mask_id: int, codes: int, keep: Any, norm_eps: float) -> dict[str, Any]:
    """All of weight 1. Hidden patches and words of a pair are one view: they are encoded once for both heads."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1}
    hidden: Any = (View("image", CorruptPatches(keep)), View("text", Corrupt(**drawn)))
    read: dict[str, Any] = {"fusion": "multimodal", "beside": hidden, "norm_eps": norm_eps}
    return {
        "contrastive": Contrastive(("image", "text")),
        "matching": Matching("multimodal", negatives="random", half_right=True),
        "mmm_image": MaskedCodes(codes, keep=keep, only={"text": True}, **read),
        "mmm_text": MaskedText(**drawn, only={"image": True}, **read),
        "mim": MaskedCodes(codes, keep=keep, only={"text": False}, norm_eps=norm_eps),
        "mlm": MaskedText(**drawn, only={"image": False}, norm_eps=norm_eps),
    }


@experiment
def base() -> Experiment:
    """302,087,287 parameters: 240,175,105 of FlavaModel's 241,356,289, whose two unimodal poolers no objective reads,
    and 61,912,182 of the heads."""
    words = Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), LENGTH, bos=True)
    pairs = Tfds("pmd", fields={"text": "caption"})
    texts = Tfds("wikipedia/20230601.en", splits={"train": "train[:99%]", "validation": "train[99%:]"})
    return Experiment(
        towers=towers(Blocks(depth=12, dtype="bfloat16", **BIG), PATCH, SIDE, VOCAB, 512, types=2),
        fusions={"multimodal": Merged(blocks=Blocks(depth=6, dtype="bfloat16", **BIG), embed_dim=768, **FUSED)},
        objectives=objectives(VOCAB, MASK, CODES, KeepOutsideBlocks(121 / 196), norm_eps=1e-12),
        data=Mixture(
            {"pmd": 1.0, "imagenet": 1.0, "texts": 1.0},
            sources={"pmd": pairs, "imagenet": Tfds("imagenet_codes"), "texts": texts},
            transforms={
                "image": (Decode(upright=False), Resize(SIDE)),
                "codes": (Codes((SIDE // PATCH) ** 2, CODES),),
                "text": (PickCaption(), Lowercase(), words),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=0.1, b2=0.999),
        batch_size=8_192,
        steps=100_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def emoji() -> Mixture:
    """Pairs, the same pictures alone, and names alone (Unicode's chart); codes are mean colours, 4 steps a channel."""
    words = Tokenize(SentencePiece(TINY_VOCAB, name="spoken_emoji"), TINY_LENGTH, bos=True)
    pictures = Renamed(Tfds("spoken_emoji"), {"unread": "text"})
    return Mixture(
        {"pairs": 2.0, "pictures": 1.0, "names": 1.0},
        sources={"pairs": Tfds("spoken_emoji"), "pictures": pictures, "names": EmojiCharts("en")},
        transforms={
            "image": (Decode(), Resize(TINY_SIDE)),
            "codes": (Decode(), Resize(TINY_SIDE), ColourCodes(TINY_PATCH, LEVELS)),
            "text": (PickCaption(), Lowercase(), words),
        },
        record_transforms=(CopyInput("image", "codes"),),
        cache=True,
    )


@experiment
def small(fusions: Any, objectives: Any, evaluators: Any) -> Experiment:
    made = towers(Blocks(width=64, depth=2, heads=4), TINY_PATCH, TINY_SIDE, TINY_VOCAB, TINY_LENGTH, types=0)
    numbers: dict[str, Any] = {"fusions": fusions, "batch_size": 96, "steps": 300, "evaluate_every": 150}
    rate = AdamW(peak_lr=2e-3, warmup_steps=40, weight_decay=0.05)
    return Experiment(made, objectives, emoji(), rate, evaluators=evaluators, **numbers)


@experiment
def tiny() -> Experiment:
    all_five = objectives(TINY_VOCAB, TINY_MASK, LEVELS**3, KeepOutsideBlocks(0.6, smallest=4), norm_eps=1e-6)
    fusion = Merged(blocks=Blocks(width=64, depth=1, heads=4), embed_dim=64, **FUSED)
    return small({"multimodal": fusion}, all_five, [Retrieval(), Losses(batches=8)])


@experiment
def tiny_contrastive() -> Experiment:
    return small({}, {"contrastive": Contrastive(("image", "text"))}, [Retrieval()])
