"""BLIP's captioner: a decoder of words whose layers attend to a picture (Li et al. 2022, arXiv:2201.12086).

    mmjax train experiments/blip_caption.py:base --workdir /mnt/bucket/blip_caption   # ViT-B/16, COCO at 384 pixels
    mmjax train experiments/blip_caption.py:large --workdir /mnt/bucket/blip_large    # ViT-L/16
    mmjax train experiments/blip_caption.py:tiny --workdir runs/blip_caption_tiny     # minutes on a CPU, demo data

Each of BERT's twelve layers reads the words so far and then all tokens of the picture, and BERT's head gives the next
word. A text begins with [DEC] in the place of [CLS]; the prompt "a picture of " stands before each caption, and isn't
predicted. A tenth of the target is spread over all words. `caption("cat.png", beams=3, max_new_tokens=20)` of a loaded
model writes as the release does, from that prompt.

This is the second step, on COCO. It starts from the released captioner that the first one gave, which is trained beside
the encoders of `blip_itm.py`, with the same layers but for self-attention: that sharing isn't here. What differs, too:
pictures are squeezed to squares, neither cropped nor recoloured; the rate falls in a straight line to where a tenth
less after each epoch leads. `hf download google-bert/bert-base-uncased vocab.txt --local-dir bert-base-uncased`, once.
"""

from typing import Any

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, Resize, SentencePiece, Subwords, Tfds, TokenizePrefixed
from mmjax.evaluate import Captions, Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

PIECES, VOCAB = 30_523, 30_524  # BERT's and [DEC]; behind it [Encode], which only `blip_itm.py` needs
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EPOCHS, CAPTIONS, BATCH, PEAK = 5, 586_363, 256, 1e-5  # captions of an epoch of COCO
PROMPT: dict[str, Any] = {"prefix": "a picture of", "separator": "", "together": False}
TINY_PIECES, TINY_LENGTH, SIDE = 128, 80, 96
BIG: dict[str, Any] = {"remat": "full", "dtype": "bfloat16"}
WORDS: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, "inits": "bert", "norm_eps": 1e-12}


@experiment
def parts(image: Blocks, words: DecoderBlocks, patch: int, size: int, vocab: int, length: int) -> dict[str, Any]:
    """The picture's tower, whose embedding nothing reads, and the decoder, whose last matrix is the table."""
    decoder = TextDecoder(
        vocab=vocab,
        length=length,
        blocks=words,
        cross="within",
        context={"image": None},
        head_bias=True,
        head_layer=True,
        norm_embedded=True,
        position_std=0.02,
    )
    return {
        "towers": {"image": ViT(patch=patch, size=size, cls=True, pooling="cls", blocks=image, mean=MEAN, std=STD)},
        "objectives": {"caption": Caption(decoder, reads=("image",), label_smoothing=0.1)},
    }


@experiment
def published(image: Blocks, start: str) -> Experiment:
    words = DecoderBlocks(norm="post", dropout=0.1, **WORDS, **BIG)
    pieces = Subwords(PIECES, "bert-base-uncased/vocab.txt", begin="[DEC]")
    cut = TokenizePrefixed(pieces, 40, **PROMPT)
    return Experiment(
        **parts(image, words, 16, 384, VOCAB, 512),
        data=Mixture(
            {"coco_pairs": 1.0},
            sources={"coco_pairs": Tfds("coco_pairs", fields={"text": "caption"})},
            transforms={"image": (Decode(upright=False), Resize(384)), "text": (PickCaption(), Lowercase(), cut)},
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=PEAK, end_lr=PEAK * 0.9**EPOCHS, schedule="linear", weight_decay=0.05, b2=0.999, clip_norm=None
        ),
        batch_size=BATCH,
        steps=EPOCHS * CAPTIONS // BATCH,
        mesh=Mesh(fsdp=8),
        init={part: Load(start) for part in ("towers.image", "objectives.caption")},
    )


@experiment
def base() -> Experiment:
    blocks = Blocks(width=768, depth=12, heads=12, norm_eps=1e-5, **BIG)
    return published(blocks, "hf:Salesforce/blip-image-captioning-base")


@experiment
def large() -> Experiment:
    """A ViT-L/16; the words' layers are those of `base`, and read its wider tokens."""
    blocks = Blocks(width=1_024, depth=24, heads=16, norm_eps=1e-5, **BIG)
    return published(blocks, "hf:Salesforce/blip-image-captioning-large")


@experiment
def tiny() -> Experiment:
    """The same on descriptions of the demo data's pictures, two to four sentences, from scratch."""
    words = TokenizePrefixed(SentencePiece(TINY_PIECES, name="described_emoji"), TINY_LENGTH, **PROMPT)
    sizes: dict[str, Any] = {"width": 128, "heads": 4}
    blocks = DecoderBlocks(norm="post", norm_eps=1e-12, depth=2, inits="bert", dropout=0.1, **sizes)
    return Experiment(
        **parts(Blocks(depth=3, norm_eps=1e-5, **sizes), blocks, 12, SIDE, TINY_PIECES, TINY_LENGTH),
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
