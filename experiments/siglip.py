"""SigLIP: a sigmoid for each pair instead of a softmax over the batch (Zhai et al. 2023, arXiv:2303.15343).

    mmjax train experiments/siglip.py:vit_b16 --workdir gs://bucket/siglip     # batch 32,768, as published
    mmjax train experiments/siglip.py:tiny --workdir runs/siglip_tiny          # minutes on a CPU, on the demo data

WebLI is private: LAION-400M stands in for it. Texts are padded to their full length, the padding is attended to, and
the last position is the text's embedding, as published; there the padding repeats the end token, here it is its own.
"""

from mmjax.data.captions import Lowercase, PickCaption, Tokenize
from mmjax.data.pipeline import Mixture
from mmjax.data.sources import Tfds
from mmjax.data.tokenizers import SentencePiece
from mmjax.data.transforms import Decode, RandomResizedCrop, Resize
from mmjax.evaluators.retrieval import Retrieval
from mmjax.experiment import Experiment, experiment
from mmjax.mesh import Mesh
from mmjax.models.image import ViT
from mmjax.models.text import TextTransformer
from mmjax.objectives.contrastive import Contrastive
from mmjax.optim import AdamW

BATCH = 32_768
STEPS = 45_000_000_000 // BATCH  # the released models saw about 45 billion pairs
VOCAB, LENGTH = 32_000, 64


@experiment
def image_tower(size: int, width: int, depth: int) -> ViT:
    return ViT(
        patch=16,
        size=size,
        width=width,
        depth=depth,
        heads=width // 64,
        pooling="map",
        activation="gelu_tanh",
        remat="full",
        dtype="bfloat16",
    )


@experiment
def text_tower(width: int, depth: int) -> TextTransformer:
    return TextTransformer(
        vocab=VOCAB,
        length=LENGTH,
        width=width,
        depth=depth,
        heads=width // 64,
        embed_dim=width,
        projection_bias=True,
        attend_padding=True,
        pooling="last",
        activation="gelu_tanh",
        remat="full",
        dtype="bfloat16",
    )


@experiment
def pairs(size: int) -> Mixture:
    return Mixture(
        {"laion400m": 1.0},
        sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
        transforms={
            "image": (Decode(), Resize(size)),
            "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(VOCAB, name="laion400m_siglip"), LENGTH)),
        },
        workers=16,
    )


@experiment
def vit_b16() -> Experiment:
    """203,155,970 parameters."""
    return Experiment(
        towers={"image": image_tower(224, 768, 12), "text": text_tower(768, 12)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="sigmoid")},
        data=pairs(224),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=1e-4, b2=0.95),
        batch_size=BATCH,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )


@experiment
def vit_l16() -> Experiment:
    """The large size, at 256 pixels."""
    return Experiment(
        towers={"image": image_tower(256, 1_024, 24), "text": text_tower(1_024, 24)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="sigmoid")},
        data=pairs(256),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=10_000, weight_decay=1e-4, b2=0.95),
        batch_size=BATCH,
        steps=STEPS,
        mesh=Mesh(fsdp=8),
    )


@experiment
def tiny() -> Experiment:
    """The same on the demo data, its pictures 64 pixels wide; remat, because it is faster on a CPU."""
    return Experiment(
        towers={
            "image": ViT(
                patch=8,
                size=64,
                width=128,
                depth=4,
                heads=4,
                pooling="map",
                activation="gelu_tanh",
                remat="dots",
            ),
            "text": TextTransformer(
                vocab=1_024,
                length=16,
                width=128,
                depth=4,
                heads=4,
                embed_dim=128,
                projection_bias=True,
                attend_padding=True,
                pooling="last",
                activation="gelu_tanh",
                remat="dots",
            ),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="sigmoid")},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=1e-4, b2=0.95),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
