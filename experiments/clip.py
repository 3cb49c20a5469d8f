"""CLIP: contrastive image-text pretraining (Radford et al. 2021, arXiv:2103.00020).

    mmjax train experiments/clip.py:vit_b32 --workdir gs://bucket/clip     # batch 32,768, as published
    mmjax train experiments/clip.py:tiny --workdir runs/clip_tiny          # minutes on a CPU, on the demo data

The paper's 400 million pairs are private: LAION-400M stands in for them, as in open_clip's re-training, and a BPE of
the published size, trained on its captions, for CLIP's own.
"""

from mmjax.data.captions import Lowercase, PickCaption, Tokenize
from mmjax.data.pipeline import Mixture
from mmjax.data.sources import Tfds
from mmjax.data.tokenizers import SentencePiece
from mmjax.data.transforms import Decode, RandomResizedCrop
from mmjax.evaluators.retrieval import Retrieval
from mmjax.experiment import Experiment, experiment
from mmjax.mesh import Mesh
from mmjax.models.image import ViT
from mmjax.models.text import TextTransformer
from mmjax.objectives.contrastive import Contrastive
from mmjax.optim import AdamW

PAIRS, EPOCHS, BATCH = 400_000_000, 32, 32_768
VOCAB, LENGTH = 49_408, 77
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@experiment
def image_tower(patch: int, width: int, depth: int, embed_dim: int) -> ViT:
    return ViT(
        patch=patch,
        size=224,
        width=width,
        depth=depth,
        heads=width // 64,
        embed_dim=embed_dim,
        cls=True,
        pooling="cls",
        pre_norm=True,
        stem_bias=False,
        activation="quick_gelu",
        norm_eps=1e-5,
        mean=MEAN,
        std=STD,
        remat="full",
        dtype="bfloat16",
    )


@experiment
def text_tower(width: int, embed_dim: int) -> TextTransformer:
    return TextTransformer(
        vocab=VOCAB,
        length=LENGTH,
        width=width,
        depth=12,
        heads=width // 64,
        embed_dim=embed_dim,
        causal=True,
        pooling="last",
        activation="quick_gelu",
        norm_eps=1e-5,
        inits="clip",
        remat="full",
        dtype="bfloat16",
    )


@experiment
def pairs() -> Mixture:
    return Mixture(
        {"laion400m": 1.0},
        sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
        transforms={
            "image": (Decode(), RandomResizedCrop(224, area=(0.9, 1.0))),
            "text": (
                PickCaption(),
                Lowercase(),
                Tokenize(SentencePiece(VOCAB, name="laion400m", model_type="bpe"), LENGTH, bos=True),
            ),
        },
        workers=16,
    )


@experiment
def adam(peak_lr: float) -> AdamW:
    return AdamW(peak_lr=peak_lr, warmup_steps=2_000, weight_decay=0.2, b1=0.9, b2=0.98, eps=1e-6, clip_norm=None)


@experiment
def vit_b32() -> Experiment:
    """151,277,313 parameters."""
    return Experiment(
        towers={"image": image_tower(32, 768, 12, 512), "text": text_tower(512, 512)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=pairs(),
        optimizer=adam(5e-4),
        batch_size=BATCH,
        steps=PAIRS * EPOCHS // BATCH,
        mesh=Mesh(fsdp=8),
    )


@experiment
def vit_b16() -> Experiment:
    """149,620,737 parameters."""
    return Experiment(
        towers={"image": image_tower(16, 768, 12, 512), "text": text_tower(512, 512)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=pairs(),
        optimizer=adam(5e-4),
        batch_size=BATCH,
        steps=PAIRS * EPOCHS // BATCH,
        mesh=Mesh(fsdp=8),
    )


@experiment
def vit_l14() -> Experiment:
    """427,616,513 parameters."""
    return Experiment(
        towers={"image": image_tower(14, 1024, 24, 768), "text": text_tower(768, 768)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=pairs(),
        optimizer=adam(4e-4),
        batch_size=BATCH,
        steps=PAIRS * EPOCHS // BATCH,
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
                embed_dim=128,
                cls=True,
                pooling="cls",
                pre_norm=True,
                stem_bias=False,
                activation="quick_gelu",
                norm_eps=1e-5,
                remat="dots",
            ),
            "text": TextTransformer(
                vocab=1_024,
                length=16,
                width=128,
                depth=4,
                heads=4,
                embed_dim=128,
                causal=True,
                pooling="last",
                activation="quick_gelu",
                norm_eps=1e-5,
                inits="clip",
                remat="dots",
            ),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16, bos=True)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.2, b2=0.98, eps=1e-6),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
