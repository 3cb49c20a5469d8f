"""LXMERT: words and regions in two streams that read each other (Tan and Bansal 2019, arXiv:1908.07490).

    mmjax train experiments/lxmert.py:base --workdir /mnt/bucket/lxmert   # 256 pairs a step, as published
    mmjax train experiments/lxmert.py:tiny --workdir runs/lxmert_tiny     # minutes on a CPU, on the demo data

Nine layers for the sentence, five for the 36 regions that a detector found, then five in which each attends to the
other. It learns masked words, masked regions (their features, and the detector's objects and attributes), whether
sentence and picture belong together, and answers to questions. `lxmert_regions` is a TFDS dataset of your own making:
features, boxes and labels of the detector beside sentences of COCO, Visual Genome, VQA and GQA.
What differs from the released code: words and regions are masked in turn, each read with the other whole, where the
code masks both at once, of wrong pairs too; an exact share of the words is masked; a region's other features come from
its own picture; the answers' head has its LayerNorm before the GELU; weights of attention are not dropped out.
"""

from typing import Any

from mmjax.data import (
    CopyInput,
    Decode,
    GatherRegions,
    GridRegions,
    Label,
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
from mmjax.objectives import Classify, MaskedRegions, MaskedText, Matching
from mmjax.optim import AdamW

VOCAB, MASK, WORDS = 30_522, 103, 20  # BERT's released vocabulary; tokens of a sentence
FEATURES, MOST = 2_048, 36  # of a region; regions of a picture
OBJECTS, ATTRIBUTES, ANSWERS = 1_600, 400, 9_500
COLUMNS = ("features", "boxes", "objects", "attributes", "objects_confidence", "attributes_confidence")
PAIRS, EPOCHS, BATCH = 9_180_000, 20, 256
STEPS = EPOCHS * PAIRS // BATCH
TINY_VOCAB, TINY_WORDS, TINY_FEATURES = 512, 16, 6
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}


@experiment
def towers(vocab: int, words: int, features: int, text: Blocks, regions: Blocks) -> dict[str, Any]:
    tables: dict[str, Any] = {"vocab": vocab, "length": words, "types": 2, "position_std": 0.02, "pre_norm": True}
    return {
        "text": TextTransformer(**tables, pooling="cls", blocks=text),
        "regions": Regions(features=features, blocks=regions),
    }


@experiment
def fusion(blocks: Blocks) -> CoAttention:
    """Both directions share the attention; the first word's state, through a tanh, is the embedding."""
    pooled: dict[str, Any] = {"pooled": "text", "embed_dim": blocks.width, "projection_tanh": True}
    both: dict[str, Any] = {"streams": {"text": blocks, "regions": blocks}, "heads": blocks.heads, "shared": True}
    return CoAttention(**both, mlp=False, **pooled)


@experiment
def objectives(vocab: int, mask_id: int, classes: dict[str, int], norm_eps: float) -> dict[str, Any]:
    """Each of weight 1; the code's sums over boxes are divided by the rate of masking."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1, "tied": True}
    boxes: dict[str, Any] = {"features": True, "classes": classes, "zeroed": 0.8, "other": 0.1, "everywhere": True}
    return {
        "words": MaskedText(**drawn, norm_eps=norm_eps, fusion="cross", beside=("regions",)),
        "boxes": MaskedRegions(**boxes, norm_eps=norm_eps, fusion="cross", beside=("text",)),
        "matched": Matching("cross", pair=("text", "regions"), negatives="random", half_right=True),
    }


@experiment
def base() -> Experiment:
    """228,051,752 parameters, 207,936,768 of them without heads: as many as Hugging Face's LXMERT has."""
    size: dict[str, Any] = {"width": 768, "heads": 12, "remat": "full", "dtype": "bfloat16", **BERT}
    both = Blocks(depth=5, **size)
    classes = {"objects": OBJECTS, "attributes": ATTRIBUTES}
    answers = Classify("answer", ANSWERS, ("text", "regions"), fusion="cross", hidden=2 * 768)
    return Experiment(
        towers=towers(VOCAB, 512, FEATURES, Blocks(depth=9, **size), both),
        fusions={"cross": fusion(both)},
        objectives={**objectives(VOCAB, MASK, classes, norm_eps=1e-12), "answers": answers},
        data=Mixture(
            {"lxmert_regions": 1.0},
            transforms={
                "text": (PickCaption(), Tokenize(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), WORDS, bos=True)),
                "regions": (ReadRegions(FEATURES, MOST, classes=classes),),
                "answer": (Label(count=ANSWERS),),
            },
            record_transforms=(GatherRegions(of=COLUMNS),),
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=1e-4, warmup_steps=STEPS // 20, schedule="linear", weight_decay=0.01, no_decay=(),
            b2=0.999, eps=1e-6, bias_correction=False, clip_norm=1.0,
        ),
        batch_size=BATCH,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )  # fmt: skip


@experiment
def tiny() -> Experiment:
    """The same without questions, on emoji and their names: a region is a cell of a grid over the picture, its features
    the mean and spread of the cell's colours, its class the most frequent colour of 27. Its blocks are pre-LN."""
    size: dict[str, Any] = {"width": 96, "heads": 4, "remat": "dots"}
    both = Blocks(depth=2, **size)
    pieces = SentencePiece(TINY_VOCAB, name="spoken_emoji")
    return Experiment(
        towers=towers(TINY_VOCAB, TINY_WORDS, TINY_FEATURES, Blocks(depth=2, **size), both),
        fusions={"cross": fusion(both)},
        objectives=objectives(TINY_VOCAB, 4, {"colour": 27}, norm_eps=1e-6),
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
