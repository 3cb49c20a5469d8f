"""BLIP's two encoders: a text read alone, and with its picture, by one transformer (Li et al. 2022, arXiv:2201.12086).

    mmjax train experiments/blip_itm.py:base --workdir /mnt/bucket/blip     # 2,880 pairs a step
    mmjax train experiments/blip_itm.py:tiny --workdir runs/blip_tiny       # minutes on a CPU, on the demo data

The text's self-attention and MLPs read a caption alone, for contrast, and, with a cross-attention to the picture's
tokens between them in each layer, the caption with its picture, for matching. The caption then begins with [Encode] in
the place of [CLS]. Contrast is ALBEF's: a teacher, the moving average of the model, gives the keys, which a queue
remembers, and softens the targets; matching has negatives that the towers take for right ones.
What differs from the paper: there is no captioner, with its loss; pictures are cropped and flipped, and no more;
the rate falls in a straight line to where a tenth less after each epoch leads; both encoders start from scratch, unless
`init` says otherwise, there from ViT and BERT. CC12M stands in for the fourteen million pairs.
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
from mmjax.models import Blocks, Cross, TextTransformer, Trunk, ViT
from mmjax.objectives import Matching, MomentumContrastive
from mmjax.optim import AdamW

PIECES, ENCODE, VOCAB = 30_522, 30_523, 30_524  # of BERT's vocabulary; behind it [Decode], which only captions need
EPOCHS, PAIRS, BATCH, DEVICES = 20, 14_000_000, 2_880, 32
EPOCH, PEAK = PAIRS // BATCH, 3e-4
TINY_PIECES, TINY_LENGTH, SIDE = 1_024, 28, 96
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
SMALL: dict[str, Any] = {"width": 128, "depth": 3, "heads": 4, "remat": "dots"}
BIG: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, "remat": "full", "dtype": "bfloat16"}


@experiment
def parts(image: Blocks, text: Blocks, patch: int, size: int, length: int, encode: int, joint: int) -> dict[str, Any]:
    """Towers, and the fusion by the text's own transformer; `encode` is the last id of the vocabulary."""
    trunk = Trunk(blocks=text, cls=False, kinds=False, cross=True)
    projected: dict[str, Any] = {"pooling": "cls", "embed_dim": joint, "projection_bias": True}
    words: dict[str, Any] = {"vocab": encode + 1, "length": length, "position_std": 0.02, "pre_norm": True}
    return {
        "towers": {
            "image": ViT(patch=patch, size=size, cls=True, blocks=image, **projected),
            "text": TextTransformer(trunk=trunk, fused_first=encode, **words, **projected),
        },
        "fusions": {"grounded": Cross(reader="text", trunk=trunk)},
    }


@experiment
def objectives(ramp_steps: int, momentum: Any, **hardness: Any) -> dict[str, Any]:
    return {
        "contrastive": MomentumContrastive(("image", "text"), alpha=0.4, ramp_steps=ramp_steps, **dict(momentum)),
        "matching": Matching("grounded", **hardness),
    }


@experiment
def names(tokenizer: Any, length: int) -> tuple[Any, ...]:
    return (PickCaption(), Lowercase(), Tokenize(tokenizer, length, bos=True))


@experiment
def base() -> Experiment:
    """A ViT-B/16 at 224 pixels, and BERT with a cross-attention in each of its layers."""
    image, text = Blocks(norm_eps=1e-6, **BIG), Blocks(**BERT, **BIG)
    pictures = (Decode(upright=False), RandomResizedCrop(224, area=(0.2, 1.0)), RandomFlip())
    return Experiment(
        **parts(image, text, 16, 224, 512, ENCODE, 256),
        objectives=objectives(2 * EPOCH, {"queue": 57_600}, within=BATCH // DEVICES),
        data=Mixture(
            {"cc12m": 1.0},
            sources={"cc12m": Tfds("cc12m", fields={"text": "caption"})},
            transforms={"image": pictures, "text": names(Subwords(PIECES, "bert-base-uncased/vocab.txt"), 30)},
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=PEAK, end_lr=PEAK * 0.9**EPOCHS, schedule="linear", warmup_steps=3_000, weight_decay=0.05, b2=0.999,
            clip_norm=None,
        ),
        batch_size=BATCH,
        steps=EPOCHS * EPOCH,
        ema=0.995,
        mesh=Mesh(fsdp=8),
    )  # fmt: skip


@experiment
def tiny() -> Experiment:
    """The same on the demo data: an emoji of any size, somewhere in the picture, and its name; of pre-LN blocks. Of its
    negatives' temperature and the learned one's rate `albef.py:tiny` says why."""
    pictures = (Decode(), Resize(SIDE), RandomAffine(translate=0.25, scale=(0.4, 1.0)))
    words = names(SentencePiece(TINY_PIECES, name="spoken_emoji"), TINY_LENGTH)
    return Experiment(
        **parts(Blocks(**SMALL), Blocks(**SMALL), 12, SIDE, TINY_LENGTH, TINY_PIECES, 128),
        objectives=objectives(100, {"queue": 1_024, "partners": "id"}, temperature=0.3),
        data=Mixture({"spoken_emoji": 1.0}, transforms={"image": pictures, "text": words}),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05, scale={r"/temperature$": 0.1}),
        batch_size=128,
        steps=400,
        ema=0.98,
        evaluators=[
            Retrieval(),
            Reranked("matching", top=16),
            Retrieval(split="test", when="end"),
            Reranked("matching", top=16, split="test"),
        ],
        evaluate_every=200,
        save_every=200,
    )
