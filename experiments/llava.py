"""LLaVA-1.5: improved baselines with visual instruction tuning (Liu et al. 2023, arXiv:2310.03744).

    mmjax train experiments/llava.py:align_7b --workdir /mnt/bucket/llava_7b_aligned  # the projector alone; align_13b
    mmjax train experiments/llava.py:tune_7b --workdir /mnt/bucket/llava_7b           # and the decoder; tune_13b
    mmjax train experiments/llava.py:tiny --workdir runs/llava_tiny                   # minutes on a CPU, on demo data

A picture's 576 tokens stand within the text, where the conversation has it: CLIP's before its last block, without the
CLS, through an MLP to the decoder's width. The projector alone learns from captions, then the decoder too from
conversations. The tower is locked in both: it comes from the released model, where it is CLIP's own; the decoder is
Vicuna. The tables, of 558k captions and the mixture of 665k, are made of LLaVA's JSON: Parquet with `conversations`,
as they are, in a column `messages`, and `image`, a path. Of lmsys/vicuna-7b-v1.5 (13b) the config and the weights go
into `vicuna_7b` (`vicuna_13b`), and tokenizer.model into `vicuna`.

What differs: what is asked before a caption is read too, and the end token ends it, where the released code leaves
that out and has a new line; batches hold what is with a picture and what is without. `tiny` has neither a tower nor a
decoder that learnt before: all learn at once.
"""

from typing import Any

from mmjax.data import (
    CenterCrop,
    ChatTemplate,
    Decode,
    Folder,
    Lowercase,
    Mixture,
    ReadConversation,
    Resize,
    ResizeLonger,
    ResizeShorter,
    SentencePiece,
    Tfds,
    TokenizeConversation,
)
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, MlpProjector, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

LLAMA: Any = {"activation": "silu", "norms": "rms", "norm_eps": 1e-5, "gated": True, "bias": False}
LARGE: Any = {"remat": "full", "dtype": "bfloat16"}
VICUNA: Any = {"tokenizer": SentencePiece(32_000, path="vicuna/tokenizer.model"), "slots": {"image": 576}}
CLIP, LOCKED, WORDS = "hf:llava-hf/llava-1.5-7b-hf", r"^towers_image/", r"^objectives_words/decoder/(?!inserted_)"
CAPTIONS = ChatTemplate(user=("", ""), assistant=("", "{eos}"), system=("", ""), begin="{bos}", media=("", ""))
SMALL: Any = {"width": 4_096, "depth": 32, "heads": 32, "mlp_dim": 11_008, **LLAMA, **LARGE}
BIG: Any = {"width": 5_120, "depth": 40, "heads": 40, "mlp_dim": 13_824, **LLAMA, **LARGE}


@experiment
def words(vocab: int, length: int, skip: int, blocks: DecoderBlocks) -> dict[str, Any]:
    """skip: the number of a picture's tokens that are left out, its CLS."""
    more: dict[str, Any] = {"positions": "rotary", "tied": False, "inserted": {"image": MlpProjector(skip=skip)}}
    decoder = TextDecoder(vocab=vocab, length=length, blocks=blocks, **more)
    return {"words": Caption(decoder, reads=("image",), alone=True)}


@experiment
def published(size: Any, table: str, form: Any, crop: Any, adam: AdamW, rows: int, steps: int, init: Any) -> Experiment:
    """Pictures of another shape are cropped, or padded with CLIP's mean colour."""
    shape: dict[str, Any] = {"cls": True, "pooling": "cls", "pre_norm": True, "stem_bias": False, "norm_pooled": True}
    blocks = Blocks(width=1_024, depth=23, heads=16, activation="quick_gelu", norm_eps=1e-5, **LARGE)
    pictures = (Decode(upright=False), crop, CenterCrop(336, fill=(122, 116, 104)))
    return Experiment(
        towers={"image": ViT(patch=14, size=336, blocks=blocks, **shape)},
        objectives=words(32_000, 2_048, 1, DecoderBlocks(**size)),
        data=Mixture(
            {"llava": 1.0},
            sources={"llava": Folder(table, root="llava/images")},
            transforms={"image": pictures, "text": (TokenizeConversation(length=2_048, template=form, **VICUNA),)},
            record_transforms=(ReadConversation(),),
            workers=16,
        ),
        **{"optimizer": adam, "batch_size": rows, "steps": steps, "mesh": Mesh(fsdp=8), "init": init},
    )


@experiment
def align(size: Any, decoder: str) -> Experiment:
    adam = AdamW(peak_lr=1e-3, warmup_steps=65, frozen=(LOCKED, WORDS), weight_decay=0.0, b2=0.999)
    init = {"towers.image": Load(CLIP), "objectives.words.decoder": Load(decoder, skip=(r"^inserted_image/",))}
    return published(size, "llava/captions.parquet", CAPTIONS, ResizeShorter(336), adam, 256, 2_180, init)


@experiment
def tune(size: Any, aligned: str) -> Experiment:
    adam = AdamW(peak_lr=2e-5, warmup_steps=156, frozen=(LOCKED,), weight_decay=0.0, b2=0.999)
    init = {"towers.image": Load(aligned), "objectives.words": Load(aligned)}
    return published(size, "llava/mixture.parquet", "vicuna_v1", ResizeLonger(336), adam, 128, 5_198, init)


@experiment
def align_7b() -> Experiment:
    return align(SMALL, "vicuna_7b")


@experiment
def align_13b() -> Experiment:
    return align(BIG, "vicuna_13b")


@experiment
def tune_7b() -> Experiment:
    return tune(SMALL, "/mnt/bucket/llava_7b_aligned")


@experiment
def tune_13b() -> Experiment:
    return tune(BIG, "/mnt/bucket/llava_13b_aligned")


@experiment
def tiny() -> Experiment:
    """Dialogues of three to five questions, about pictures of two tiles."""
    size: dict[str, Any] = {"width": 128, "depth": 4, "heads": 4}
    talk = TokenizeConversation(SentencePiece(256, name="described_emoji_talks"), 161, slots={"image": 36})
    blind = Losses(split="test", batches=4, name="blind", without=("image",), when="end")
    return Experiment(
        towers={"image": ViT(patch=16, size=96, pooling="mean", blocks=Blocks(**size))},
        objectives=words(256, 160, 0, DecoderBlocks(**size, **LLAMA)),
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"messages": "messages"})},
            transforms={"image": (Decode(), Resize(96)), "text": (Lowercase(), talk)},
            record_transforms=(ReadConversation(),),
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=30, weight_decay=0.1),
        batch_size=64,
        steps=400,
        evaluators=[Losses(split="test", batches=4, when="end"), blind],
    )
