"""GIT: a decoder that reads a picture as the beginning of its text (Wang et al. 2022, arXiv:2205.14100).

    mmjax train experiments/git_base.py:base --workdir /mnt/bucket/git         # ViT-B/16 and six layers
    mmjax train experiments/git_base.py:coco --workdir /mnt/bucket/git_coco    # from there, on COCO's captions
    mmjax train experiments/git_base.py:tiny --workdir runs/git_tiny           # minutes on a CPU, on the demo data

All tokens of CLIP's tower, mapped by a linear map and a LayerNorm, stand before the words: they see each other, and the
words see them and the words before. There is no cross-attention and no other loss than that of the next word. A prompt
is what a caption goes on from.

Sizes are the released ones. No code of training is: batch, rates (the tower's a fifth of the decoder's) and passes are
the paper's for its largest model, taken from memory, and COCO's are ours. CC12M stands in for the ten million pairs of
COCO, SBU, CC3M and Visual Genome. A released model starts a run too: `Load("hf:microsoft/git-base")`.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, Resize, SentencePiece, Subwords, Tfds, Tokenize
from mmjax.evaluate import Captions, Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, LinearProjector, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

PIECES, LENGTH = 30_522, 1_024  # of BERT's vocabulary; the places of words
EPS, MEAN, STD = 1e-5, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CAPTIONS = 586_363  # of an epoch of COCO
TINY_PIECES, TINY_LENGTH, SIDE = 128, 64, 96
BIG: dict[str, Any] = {"width": 768, "heads": 12, "remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4}
SLOWER = {r"^towers_image/": 0.2}


@experiment
def parts(patch: int, size: int, depth: int, layers: int, vocab: int, length: int, sizes: Any) -> dict[str, Any]:
    """CLIP's tower, whose embedding nothing reads, and BERT's layers, causal behind the picture."""
    seen = Blocks(**sizes, depth=depth, activation="quick_gelu", norm_eps=EPS)
    blocks = DecoderBlocks(**sizes, depth=layers, norm="post", norm_eps=1e-12, inits="bert", dropout=0.1)
    decoder = TextDecoder(
        vocab=vocab,
        length=length,
        blocks=blocks,
        prefix={"image": LinearProjector(norm_eps=EPS)},
        prefix_places=False,
        tied=False,
        head_bias=True,
        norm_embedded=True,
        position_std=0.02,
    )
    shape: dict[str, Any] = {"cls": True, "pooling": "cls", "pre_norm": True, "stem_bias": False}
    return {
        "towers": {"image": ViT(patch=patch, size=size, blocks=seen, mean=MEAN, std=STD, **shape)},
        "objectives": {"caption": Caption(decoder, reads=("image",))},
    }


@experiment
def pairs(name: str) -> Mixture:
    """Pictures squeezed to squares, and captions of at most 40 pieces between [CLS] and [SEP]."""
    words = Tokenize(Subwords(PIECES, "bert-base-uncased/vocab.txt"), 40, bos=True)
    return Mixture(
        {"pairs": 1.0},
        transforms={"image": (Decode(upright=False), Resize(224)), "text": (PickCaption(), Lowercase(), words)},
        sources={"pairs": Tfds(name, fields={"text": "caption"})},
        workers=16,
    )


@experiment
def published(data: str, start: dict[str, Any], peak_lr: float, batch_size: int, steps: int) -> Experiment:
    return Experiment(
        **parts(16, 224, 12, 6, PIECES, LENGTH, BIG),
        data=pairs(data),
        optimizer=AdamW(peak_lr=peak_lr, warmup_steps=500, weight_decay=0.05, b2=0.999, scale=SLOWER),
        batch_size=batch_size,
        steps=steps,
        mesh=Mesh(fsdp=8),
        init=start,
    )


@experiment
def base() -> Experiment:
    return published("cc12m", {"towers.image": Load("hf:openai/clip-vit-base-patch16")}, 5e-5, 4_096, 5_000)


@experiment
def coco() -> Experiment:
    start = {part: Load("/mnt/bucket/git") for part in ("towers.image", "objectives.caption")}
    return published("coco_pairs", start, 1e-5, 512, 10 * CAPTIONS // 512)


@experiment
def tiny() -> Experiment:
    """The same on descriptions of the demo data's pictures, two to four sentences, from scratch."""
    words = Tokenize(SentencePiece(TINY_PIECES, name="described_emoji"), TINY_LENGTH, bos=True)
    return Experiment(
        **parts(12, SIDE, 3, 2, TINY_PIECES, TINY_LENGTH, SMALL),
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"text": "captions", "captions": "captions"})},
            transforms={"image": (Decode(), Resize(SIDE)), "text": (PickCaption(), Lowercase(), words)},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05),
        batch_size=64,
        steps=600,
        evaluators=[Losses(split="test", batches=4, when="end"), Captions("caption", split="test", when="end")],
        save_every=100,
    )
