"""CoCa: contrastive captioners are image-text foundation models (Yu et al. 2022, arXiv:2205.01917).

    mmjax train experiments/coca.py:base --workdir /mnt/bucket/coca_base       # batch 65,536, 500,000 steps
    mmjax train experiments/coca.py:tiny --workdir runs/coca_tiny              # minutes on a CPU, on the demo data
    mmjax train experiments/coca.py:tiny_contrastive --workdir runs/coca_tiny_contrastive   # without its captions

A text tower of causal layers is the lower half of a captioning decoder: one pass of it gives a CLS for the contrastive
loss and, of each word, the state from which the upper half goes on, reading the picture's tokens too. Those are 256
learned queries' that read all patches; one more query reads them for the picture's embedding. The losses are weighted
1 and 2. `base` has 86M and 297M parameters in the picture's ViT and in the text's layers, tables and last matrix, 383M
in all, `large` 303M and 484M; poolers and projections come on top.

JFT-3B and ALIGN are private: LAION-400M stands in for them. How long texts are isn't told; 64 words are taken.
open_clip's, which differ (the picture's embedding is of the first of 256 queries, layers of their own read the others,
the CLS's mask is shifted by one), are read as `open_clip:coca_ViT-B-32/laion2b_s13b_b90k`.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, Resize, SentencePiece, Tfds, Tokenize
from mmjax.evaluate import Captions, Losses, Retrieval
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, PooledViT, TextTransformer, UpperDecoder
from mmjax.objectives import Caption, Contrastive
from mmjax.optim import Adafactor, AdamW

CAPTION = {"caption": 2.0}
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4}


@experiment
def text(vocab: int, length: int, blocks: Blocks) -> TextTransformer:
    """The lower half: its last LayerNorm is the CLS's alone."""
    behind: dict[str, Any] = {"causal": True, "cls_last": True, "norm_pooled": True}
    return TextTransformer(vocab=vocab, length=length, embed_dim=blocks.width, blocks=blocks, **behind)


@experiment
def published(image: Blocks, lower: Blocks, upper: DecoderBlocks) -> Experiment:
    picture = PooledViT(patch=18, size=288, embed_dim=lower.width, pooler_heads=lower.heads, blocks=image)
    decoder = UpperDecoder(vocab=64_000, length=64, blocks=upper, context={"image": None})
    words = Tokenize(SentencePiece(64_000, name="laion400m_coca"), 64, bos=True)
    return Experiment(
        towers={"image": picture, "text": text(64_000, 64, lower)},
        objectives={"contrastive": Contrastive(("image", "text")), "caption": Caption(decoder, reads=("image",))},
        weights=CAPTION,
        data=Mixture(
            {"laion400m": 1.0},
            sources={"laion400m": Tfds("laion400m/images", fields={"text": "caption"})},
            transforms={"image": (Decode(upright=False), Resize(288)), "text": (PickCaption(), words)},
            workers=16,
        ),
        optimizer=Adafactor(peak_lr=8e-4, schedule="linear", warmup_steps=10_000, weight_decay=0.01),
        batch_size=65_536,
        steps=500_000,
        mesh=Mesh(fsdp=8),
    )


@experiment
def base() -> Experiment:
    big: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, **BIG}
    return published(Blocks(**big), Blocks(**big), DecoderBlocks(**big))


@experiment
def large() -> Experiment:
    big: dict[str, Any] = {"width": 1_024, "heads": 16, **BIG}
    return published(Blocks(**big, depth=24), Blocks(**big, depth=12), DecoderBlocks(**big, depth=12))


@experiment
def full() -> Experiment:
    big: dict[str, Any] = {"width": 1_408, "heads": 16, **BIG}
    image = Blocks(**big, depth=40, mlp_dim=6_144)
    return published(image, Blocks(**big, depth=18), DecoderBlocks(**big, depth=18))


@experiment
def small(captions: dict[str, Any], weights: dict[str, float], evaluators: list[Any]) -> Experiment:
    """Descriptions of the demo data's pictures; captions: the caption's objective, or none."""
    picture = PooledViT(patch=12, size=96, queries=16, pooler_heads=4, embed_dim=128, blocks=Blocks(**SMALL, depth=3))
    words = Tokenize(SentencePiece(128, name="described_emoji"), 64, bos=True)
    return Experiment(
        towers={"image": picture, "text": text(128, 64, Blocks(**SMALL, depth=2))},
        objectives={"contrastive": Contrastive(("image", "text")), **captions},
        weights=weights,
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"text": "captions", "captions": "captions"})},
            transforms={"image": (Decode(), Resize(96)), "text": (PickCaption(), Lowercase(), words)},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=40, weight_decay=0.1, b2=0.98),
        batch_size=64,
        steps=600,
        evaluators=[
            Retrieval(same="picture"),  # a picture has two dialogues, so two rows
            Retrieval(split="test", when="end", same="picture"),
            Losses(split="test", batches=4, when="end"),
            *evaluators,
        ],
        save_every=100,
    )


@experiment
def tiny() -> Experiment:
    decoder = UpperDecoder(vocab=128, length=64, blocks=DecoderBlocks(**SMALL, depth=2), context={"image": None})
    captions = {"caption": Caption(decoder, reads=("image",))}
    return small(captions, CAPTION, [Captions("caption", split="test", when="end")])


@experiment
def tiny_contrastive() -> Experiment:
    return small({}, {}, [])
