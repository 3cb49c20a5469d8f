"""BEiT-3: a picture as a foreign language, by one transformer with ways of both (Wang et al. 2022, arXiv:2208.10442).

    mmjax train experiments/beit3.py:base --workdir /mnt/bucket/beit3      # 6,144 examples a step, as published
    mmjax train experiments/beit3.py:tiny --workdir runs/beit3_tiny        # minutes on a CPU, on the demo data

One trunk: a layer has everything twice, for pictures and for texts, and attention mixes the tokens of both. One loss:
what is hidden is predicted, codes of patches and words. Pictures alone, texts alone and pairs are the examples of one
batch; one that lacks an input goes through its own way as it would alone. 40 % of the patches are hidden, in blocks;
15 % of the words of a text alone, half of a pair's, in the same pass as its patches. `pairs_codes` and
`imagenet22k_codes` stand for TFDS datasets of one's own making, with the 14 x 14 codes of BEiT v2's tokenizer for each
picture, so that pictures are never cropped at random. The English Wikipedia stands in for the texts.
What differs from the released code: its pieces of words are other ones, as many; no layer is dropped.
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
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, MultiwayTrunk, TextTransformer, ThroughTrunk, ViT
from mmjax.objectives import Corrupt, CorruptPatches, KeepOutsideBlocks, MaskedCodes, MaskedText, View
from mmjax.optim import AdamW

PATCH, SIDE, VOCAB, LENGTH, CODES = 16, 224, 64_010, 1_022, 8_192
TINY_PATCH, TINY_SIDE, TINY_VOCAB, TINY_LENGTH, LEVELS = 4, 32, 512, 20, 4
ALONE, PAIRED, KEPT = 0.15, 0.5, 0.6  # of words that are hidden, and of patches that aren't
WAYS: dict[str, Any] = {"ways": ("image", "text"), "apart": "all", "sub_norm": True, "kinds": False}
UNDECAYED = (r"(^|/)(bias|scale|cls|mask|position|embedding)$",)


@experiment
def parts(blocks: Blocks, patch: int, size: int, vocab: int, length: int) -> dict[str, Any]:
    """Towers and fusion of one trunk. No token reads the first two rows of positions, as in fairseq."""
    trunk = MultiwayTrunk(blocks=blocks, **WAYS)
    shared: dict[str, Any] = {"trunk": trunk, "pooling": "cls", "position_std": 0.02, "position_offset": 2}
    image = ViT(way="image", patch=patch, size=size, cls=True, mask_token=True, **shared)
    text = TextTransformer(way="text", vocab=vocab, length=length, **shared)
    return {"towers": {"image": image, "text": text}, "fusions": {"together": ThroughTrunk(trunk=trunk)}}


@experiment
def objectives(vocab: int, codes: int, keep: Any) -> dict[str, Any]:
    """One loss in two parts, which read one view: what is hidden of both is encoded once."""
    rates: dict[str, Any] = {"vocab": vocab, "rate": ALONE, "paired_rate": PAIRED}
    hidden: Any = (View("image", CorruptPatches(keep)), View("text", Corrupt(paired=("image",), **rates)))
    both: dict[str, Any] = {"fusion": "together", "beside": hidden, "transform": False}
    return {"patches": MaskedCodes(codes, keep=keep, **both), "words": MaskedText(**rates, **both)}


@experiment
def published(width: int, depth: int, heads: int) -> Experiment:
    blocks = Blocks(width=width, depth=depth, heads=heads, norm_eps=1e-5, inits="bert", remat="full", dtype="bfloat16")
    return Experiment(
        **parts(blocks, PATCH, SIDE, VOCAB, LENGTH),
        objectives=objectives(VOCAB, CODES, KeepOutsideBlocks(KEPT)),
        data=Mixture(
            {"imagenet22k": 1.0, "wikipedia": 1.0, "pairs": 1.0},
            sources={
                "imagenet22k": Tfds("imagenet22k_codes"),
                "wikipedia": Tfds("wikipedia/20230601.en", splits={"train": "train[:99%]"}),
                "pairs": Tfds("pairs_codes", fields={"text": "caption"}),
            },
            transforms={
                "image": (Decode(upright=False), Resize(SIDE)),
                "codes": (Codes((SIDE // PATCH) ** 2, CODES),),
                "text": (PickCaption(), Tokenize(SentencePiece(VOCAB, name="beit3"), 128, bos=True)),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=0.05, b2=0.98, no_decay=UNDECAYED),
        batch_size=6_144,
        steps=1_000_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def base() -> Experiment:
    """276,510,730 parameters: 220,987,392 of the backbone and two heads, each a matrix and a bias."""
    return published(768, 12, 12)


@experiment
def large() -> Experiment:
    """746,709,514 parameters: 672,702,464 of the backbone and two heads, each a matrix and a bias."""
    return published(1_024, 24, 16)


@experiment
def emoji() -> Mixture:
    """Pairs; the same pictures alone; and names alone, of Unicode's chart. Codes are the patches' mean colours."""
    words = Tokenize(SentencePiece(TINY_VOCAB, name="spoken_emoji"), TINY_LENGTH, bos=True)
    return Mixture(
        {"pairs": 1.0, "pictures": 1.0, "names": 1.0},
        sources={
            "pairs": Tfds("spoken_emoji"),
            "pictures": Renamed(Tfds("spoken_emoji"), {"unread": "text"}),
            "names": EmojiCharts("en"),
        },
        transforms={
            "image": (Decode(), Resize(TINY_SIDE)),
            "codes": (Decode(), Resize(TINY_SIDE), ColourCodes(TINY_PATCH, LEVELS)),
            "text": (PickCaption(), Lowercase(), words),
        },
        record_transforms=(CopyInput("image", "codes"),),
        cache=True,
    )


@experiment
def tiny() -> Experiment:
    return Experiment(
        **parts(Blocks(width=64, depth=2, heads=4), TINY_PATCH, TINY_SIDE, TINY_VOCAB, TINY_LENGTH),
        objectives=objectives(TINY_VOCAB, LEVELS**3, KeepOutsideBlocks(KEPT, smallest=4)),
        data=emoji(),
        optimizer=AdamW(peak_lr=2e-3, warmup_steps=40, weight_decay=0.05, no_decay=UNDECAYED),
        batch_size=128,
        steps=400,
        evaluators=[Losses(batches=8)],
    )
