"""ViLBERT: co-attention between a BERT and a stream of regions (Lu et al. 2019, arXiv:1908.02265).

    mmjax train experiments/vilbert.py:base --workdir /mnt/bucket/vilbert   # 512 pairs a step, as published
    mmjax train experiments/vilbert.py:tiny --workdir runs/vilbert_tiny     # minutes on a CPU, on the demo data

Twelve layers of BERT for the words, six wider ones for up to 36 regions of a detector and a token of the whole picture;
after the sixth of BERT's, each of the last six stands beside one of the regions' in a layer of the fusion, in which
both streams attend to each other first. So the text tower holds six blocks and the regions' tower none. It learns
masked words, masked regions (which classes the detector sees in them) and whether caption and picture belong together.
`cc3m_regions` is a TFDS dataset of your own making: the regions' features, boxes and class distributions of Conceptual
Captions. The paper starts from BERT's weights, this from scratch.
What differs from the released code: words and regions are masked in turn, each read with the other whole, where the
code masks both at once, of wrong pairs too; an exact share of the words is masked; the class holds two linear layers
more in each co-attention layer, which nothing reads; weights of attention are not dropped out.
"""

from typing import Any

from mmjax.data import (
    CopyInput,
    Decode,
    GatherRegions,
    GridRegions,
    Lowercase,
    Mixture,
    PickCaption,
    ReadRegions,
    Resize,
    SentencePiece,
    Subwords,
    Tokenize,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, CoAttention, Regions, TextTransformer
from mmjax.objectives import MaskedRegions, MaskedText, Matching
from mmjax.optim import AdamW

VOCAB, MASK, WORDS = 30_522, 103, 36  # BERT's released vocabulary; tokens of a caption
FEATURES, MOST, CLASSES = 2_048, 36, 1_601  # of a region; regions of a picture; the detector's classes
PAIRS, EPOCHS, BATCH = 3_100_000, 10, 512
STEPS = EPOCHS * PAIRS // BATCH
TINY_VOCAB, TINY_WORDS, TINY_FEATURES = 512, 16, 6
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
UNDECAYED = (r"(^|/)(bias|scale)$",)


@experiment
def towers(vocab: int, words: int, features: int, text: Blocks, regions: Blocks) -> dict[str, Any]:
    tables: dict[str, Any] = {"vocab": vocab, "length": words, "types": 2, "position_std": 0.02, "pre_norm": True}
    places: dict[str, Any] = {"joined": "sum", "area": True, "whole": True}
    return {
        "text": TextTransformer(**tables, pooling="cls", blocks=text),
        "regions": Regions(features=features, **places, pooling="cls", blocks=regions),
    }


@experiment
def objectives(vocab: int, mask_id: int, target: str, classes: int, norm_eps: float) -> dict[str, Any]:
    """Each of weight 1. The embedding is the product of the whole picture's and the caption's token."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1, "tied": True}
    return {
        "words": MaskedText(**drawn, norm_eps=norm_eps, fusion="both", beside=("regions",)),
        "boxes": MaskedRegions(classes={target: classes}, norm_eps=norm_eps, fusion="both", beside=("text",)),
        "matched": Matching("both", pair=("text", "regions"), negatives="random", half_right=True),
    }


@experiment
def base() -> Experiment:
    """239,023,229 parameters, 235,705,856 of them without heads. With the linear layers that nothing reads, 11,020,800,
    the released class has 250.0 and 246.7 million."""
    size: dict[str, Any] = {"remat": "full", "dtype": "bfloat16", **BERT}
    words: dict[str, Any] = {"width": 768, "heads": 12, **size}
    boxes: dict[str, Any] = {"width": 1_024, "heads": 8, "mlp_dim": 1_024, **size}
    streams = {"text": Blocks(depth=6, **words), "regions": Blocks(depth=6, **boxes)}
    return Experiment(
        towers=towers(VOCAB, 512, FEATURES, Blocks(depth=6, **words), Blocks(depth=0, **boxes)),
        fusions={"both": CoAttention(streams=streams, heads=8, inner=1_024, embed_dim=1_024)},
        objectives=objectives(VOCAB, MASK, "detected", CLASSES, norm_eps=1e-12),
        data=Mixture(
            {"cc3m_regions": 1.0},
            transforms={
                "text": (PickCaption(), Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), WORDS, bos=True)),
                "regions": (ReadRegions(FEATURES, MOST, distributions={"detected": CLASSES}),),
            },
            record_transforms=(GatherRegions(of=("features", "boxes", "detected")),),
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=1e-4, warmup_steps=STEPS // 10, schedule="linear", weight_decay=0.01, no_decay=UNDECAYED,
            b2=0.999, eps=1e-6, bias_correction=False,
        ),
        batch_size=BATCH,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )  # fmt: skip


@experiment
def tiny() -> Experiment:
    """The same on emoji and their names: a region is a cell of a grid over the picture, its features the mean and the
    spread of the cell's colours, its distribution how much of it has each of 27 colours. Its blocks are pre-LN."""
    words: dict[str, Any] = {"width": 96, "heads": 4, "remat": "dots"}
    boxes: dict[str, Any] = {"width": 64, "heads": 4, "remat": "dots"}
    streams = {"text": Blocks(depth=2, **words), "regions": Blocks(depth=2, **boxes)}
    pieces = SentencePiece(TINY_VOCAB, name="spoken_emoji")
    return Experiment(
        towers=towers(TINY_VOCAB, TINY_WORDS, TINY_FEATURES, Blocks(depth=2, **words), Blocks(depth=0, **boxes)),
        fusions={"both": CoAttention(streams=streams, heads=4, inner=64, embed_dim=64)},
        objectives=objectives(TINY_VOCAB, 4, "colours", 27, norm_eps=1e-6),
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "text": (PickCaption(), Lowercase(), Tokenize(pieces, TINY_WORDS, bos=True)),
                "regions": (Decode(), Resize(32), GridRegions()),
            },
            record_transforms=(CopyInput(of="image", to="regions"),),
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.05),
        batch_size=128,
        steps=500,
        evaluators=[Losses(batches=4), Losses(split="test", batches=4, when="end")],
        evaluate_every=250,
        save_every=250,
    )  # fmt: skip
