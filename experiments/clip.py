"""CLIP: contrastive image-text pretraining (Radford et al. 2021, arXiv:2103.00020).

    mmjax train experiments/clip.py:vit_b32 --workdir /mnt/bucket/clip     # batch 32,768, as published
    mmjax train experiments/clip.py:tiny --workdir runs/clip_tiny          # minutes on a CPU, on the demo data

The paper's 400 million pairs are private: LAION-400M stands in for them, as in open_clip's re-training, and a BPE of
the published size, trained on its captions, for CLIP's own. The ResNets are in `clip_resnet.py`.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, RandomResizedCrop, SentencePiece, Tfds, Tokenize
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW

PAIRS, EPOCHS, BATCH = 400_000_000, 32, 32_768
EPOCH = PAIRS // BATCH
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}


@experiment
def blocks(width: int, depth: int, heads: int, **more: Any) -> Blocks:
    return Blocks(width=width, depth=depth, heads=heads, activation="quick_gelu", norm_eps=1e-5, **more)


@experiment
def vit(patch: int, size: int, embed_dim: int, blocks: Blocks, **more: Any) -> ViT:
    whole = {"patch": patch, "size": size, "cls": True, "pooling": "cls", "pre_norm": True, "stem_bias": False}
    return ViT(blocks=blocks, embed_dim=embed_dim, **whole, **more)


@experiment
def text(vocab: int, length: int, embed_dim: int, blocks: Blocks) -> TextTransformer:
    return TextTransformer(vocab=vocab, length=length, blocks=blocks, embed_dim=embed_dim, causal=True, pooling="last")


@experiment
def clip(image: Any, width: int, peak_lr: float, steps: int, b2: float, eps: float, init: Any) -> Experiment:
    """The published recipe for an image tower; `width` is the text tower's."""
    tokenizer = SentencePiece(49_408, name="laion400m", model_type="bpe")
    reading = blocks(width, 12, width // 64, inits="clip", **BIG)
    return Experiment(
        towers={"image": image, "text": text(49_408, 77, image.embed_dim, reading)},
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={
                "image": (Decode(upright=False), RandomResizedCrop(image.size, area=(0.9, 1.0))),
                "text": (PickCaption(), Lowercase(), Tokenize(tokenizer, 77, bos=True)),
            },
            workers=16,
        ),
        optimizer=AdamW(peak_lr=peak_lr, warmup_steps=2_000, weight_decay=0.2, b2=b2, eps=eps, clip_norm=None),
        batch_size=BATCH,
        steps=steps,
        mesh=Mesh(fsdp=8),
        init=init,
    )


@experiment
def transformer(
    patch: int, size: int, width: int, depth: int, embed_dim: int, peak_lr: float, epochs: int = EPOCHS, init: Any = ()
) -> Experiment:
    image = vit(patch, size, embed_dim, blocks(width, depth, width // 64, **BIG), mean=MEAN, std=STD)
    return clip(image, embed_dim, peak_lr, epochs * EPOCH, b2=0.98, eps=1e-6, init=dict(init))


@experiment
def vit_b32() -> Experiment:
    """151,277,313 parameters."""
    return transformer(32, 224, 768, 12, 512, peak_lr=5e-4)


@experiment
def vit_b16() -> Experiment:
    """149,620,737 parameters."""
    return transformer(16, 224, 768, 12, 512, peak_lr=5e-4)


@experiment
def vit_l14() -> Experiment:
    """427,616,513 parameters."""
    return transformer(14, 224, 1_024, 24, 768, peak_lr=4e-4)


@experiment
def vit_l14_336() -> Experiment:
    """427,944,193 parameters: one more epoch at 336 pixels, from a run of `vit_l14`."""
    start = {name: Load("runs/clip_l14") for name in ("towers.image", "towers.text", "objectives.contrastive")}
    return transformer(14, 336, 1_024, 24, 768, peak_lr=2e-5, epochs=1, init=start)


@experiment
def tiny() -> Experiment:
    """The same on the demo data, its pictures 64 pixels wide; remat, because it is faster on a CPU."""
    pictures = (Decode(), RandomResizedCrop(64, area=(0.7, 1.0)))
    names = (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16, bos=True))
    return Experiment(
        towers={
            "image": vit(8, 64, 128, blocks(width=128, depth=4, heads=4, remat="dots")),
            "text": text(1_024, 16, 128, blocks(width=128, depth=4, heads=4, inits="clip", remat="dots")),
        },
        objectives={"contrastive": Contrastive(("image", "text"), loss="softmax")},
        data=Mixture({"spoken_emoji": 1.0}, transforms={"image": pictures, "text": names}),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.2, b2=0.98, eps=1e-6),
        batch_size=256,
        steps=300,
        evaluators=[Retrieval()],
        evaluate_every=100,
        save_every=100,
    )
