"""SigLIP: a sigmoid for each pair instead of a softmax over the batch (Zhai et al. 2023, arXiv:2303.15343).

    mmjax train experiments/siglip.py:vit_b16 --workdir /mnt/bucket/siglip     # batch 32,768, as published
    mmjax train experiments/siglip.py:tiny --workdir runs/siglip_tiny          # minutes on a CPU, on the demo data

WebLI is private: LAION-400M stands in for it, with pieces trained on its captions. Texts are filled up with their end
token, all of which is attended to, and the last position is the text's embedding.
"""

from typing import Any

from mmjax.data import (
    EOS,
    Canonicalize,
    Decode,
    Mixture,
    PickCaption,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

BATCH = 32_768
STEPS = 45_000_000_000 // BATCH  # the released models saw about 45 billion pairs
BIG: dict[str, Any] = {"activation": "gelu_tanh", "remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "depth": 4, "heads": 4, "activation": "gelu_tanh", "remat": "dots"}
STICKY: dict[str, Any] = {"projection_bias": True, "attend_padding": True, "pooling": "last"}


@experiment
def siglip(patch: int, size: int, width: int, depth: int, heads: int, mlp_dim: int, length: int = 64) -> Experiment:
    """The published recipe; both towers are of one shape."""
    shape = {"width": width, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, **BIG}
    return Experiment(
        towers={
            "image": ViT(patch=patch, size=size, pooling="map", drop_rest=True, blocks=Blocks(**shape)),
            "text": TextTransformer(vocab=32_000, length=length, embed_dim=width, blocks=Blocks(**shape), **STICKY),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="sigmoid")},
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), Resize(size)),
                "text": (
                    PickCaption(),
                    Canonicalize(),
                    Tokenize(SentencePiece(32_000, name="laion400m_siglip"), length, pad=EOS),
                ),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=1e-4, b2=0.95),
        batch_size=BATCH,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )


@experiment
def vit_b16() -> Experiment:
    """203,155,970 parameters."""
    return siglip(16, 224, 768, 12, 12, 3_072)


@experiment
def vit_b16_384() -> Experiment:
    return siglip(16, 384, 768, 12, 12, 3_072)


@experiment
def vit_l16() -> Experiment:
    """652,150,786 parameters, at 256 pixels."""
    return siglip(16, 256, 1_024, 24, 16, 4_096)


@experiment
def so400m() -> Experiment:
    """The shape-optimised one, 877 million parameters; texts of 16 tokens."""
    return siglip(14, 224, 1_152, 27, 16, 4_304, length=16)


@experiment
def so400m_384() -> Experiment:
    """At 384 pixels, of which patches of 14 see 378; texts of 64 tokens."""
    return siglip(14, 384, 1_152, 27, 16, 4_304)


@experiment
def tiny() -> Experiment:
    """The same on the demo data, its pictures 64 pixels wide; remat, because it is faster on a CPU."""
    return Experiment(
        towers={
            "image": ViT(patch=8, size=64, pooling="map", blocks=Blocks(**SMALL)),
            "text": TextTransformer(vocab=1_024, length=16, embed_dim=128, blocks=Blocks(**SMALL), **STICKY),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="sigmoid")},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (
                    PickCaption(),
                    Canonicalize(),
                    Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16, pad=EOS),
                ),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=1e-4, b2=0.95),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
