"""CLIP's ResNets: contrastive image-text pretraining (Radford et al. 2021, arXiv:2103.00020).

    mmjax train experiments/clip_resnet.py:rn50 --workdir /mnt/bucket/clip_rn50    # batch 32,768, as published
    mmjax train experiments/clip_resnet.py:tiny --workdir runs/clip_resnet_tiny    # minutes on a CPU, on the demo data

The transformers, and what stands in for data and tokenizer, are in `clip.py`. Batch statistics are those of the global
batch.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, RandomResizedCrop, SentencePiece, Tfds, Tokenize
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, ResNet, TextTransformer
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

PAIRS, EPOCHS, BATCH = 400_000_000, 32, 32_768
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}


@experiment
def text(vocab: int, length: int, embed_dim: int, **sizes: Any) -> TextTransformer:
    blocks = Blocks(activation="quick_gelu", norm_eps=1e-5, inits="clip", **sizes)
    return TextTransformer(vocab=vocab, length=length, blocks=blocks, embed_dim=embed_dim, causal=True, pooling="last")


@experiment
def resnet(
    layers: tuple[int, int, int, int], width: int, size: int, embed_dim: int, text_width: int, peak_lr: float
) -> Experiment:
    tokenizer = SentencePiece(49_408, name="laion400m", model_type="bpe")
    return Experiment(
        towers={
            "image": ResNet(layers=layers, width=width, size=size, embed_dim=embed_dim, mean=MEAN, std=STD, **BIG),
            "text": text(49_408, 77, embed_dim, width=text_width, depth=12, heads=text_width // 64, **BIG),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(size, area=(0.9, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(tokenizer, 77, bos=True)),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=peak_lr, warmup_steps=2_000, weight_decay=0.2, b2=0.999, clip_norm=None),
        batch_size=BATCH,
        steps=EPOCHS * PAIRS // BATCH,
        mesh=Mesh(fsdp=8),
    )


@experiment
def rn50() -> Experiment:
    """102,007,137 parameters."""
    return resnet((3, 4, 6, 3), 64, 224, 1_024, text_width=512, peak_lr=5e-4)


@experiment
def rn101() -> Experiment:
    """119,688,033 parameters."""
    return resnet((3, 4, 23, 3), 64, 224, 512, text_width=512, peak_lr=5e-4)


@experiment
def rn50x4() -> Experiment:
    """178,300,601 parameters."""
    return resnet((4, 6, 10, 6), 80, 288, 640, text_width=640, peak_lr=5e-4)


@experiment
def rn50x16() -> Experiment:
    """290,979,217 parameters."""
    return resnet((6, 8, 18, 8), 96, 384, 768, text_width=768, peak_lr=4e-4)


@experiment
def rn50x64() -> Experiment:
    """623,258,305 parameters."""
    return resnet((3, 15, 36, 10), 128, 448, 1_024, text_width=1_024, peak_lr=3.6e-4)


@experiment
def tiny() -> Experiment:
    """A narrow one on the demo data."""
    return Experiment(
        towers={
            "image": ResNet(layers=(1, 1, 1, 1), width=16, size=64, embed_dim=128),
            "text": text(1_024, 16, 128, width=128, depth=4, heads=4, remat="dots"),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=Mixture(
            {"spoken_emoji": 1.0},
            transforms={
                "image": (Decode(), RandomResizedCrop(64, area=(0.7, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16, bos=True)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.2),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
