"""PaliGemma: SigLIP's patches and a prompt, from which Gemma writes on (Beyer et al. 2024, arXiv:2407.07726).

    mmjax train experiments/paligemma.py:stage1 --workdir /mnt/bucket/paligemma1      # all of it, at 224 pixels
    mmjax train experiments/paligemma.py:stage2 --workdir /mnt/bucket/paligemma2      # from there, at 448
    mmjax train experiments/paligemma.py:coco --workdir /mnt/bucket/paligemma_coco    # stage 3: stage 1 to a task
    mmjax train experiments/paligemma.py:tiny --workdir runs/paligemma_tiny           # minutes on a CPU, demo data

A row is the picture's tokens, `<bos> caption en` and a line break, which see each other, and the caption, each word of
which sees what is before it and is predicted; the loss is the mean of captions' means. The linear map of the picture's
tokens starts at zero, so that they disturb nothing at first. Nothing is frozen. Stage 0 is others': SigLIP's tower;
Gemma-2B's own files aren't read, so the decoder of `stage1` starts at random; or start both parts by
`Load("hf:google/paligemma-3b-pt-224")`, with `vocab=257_216`, the rows of those files. Stages see captions alone
(LAION-400M's; WebLI is private), as many as the paper's, from memory, at rates of ours, the tower's a tenth in stage 1;
COCO's is the released recipe. `hf download google/paligemma-3b-pt-224 tokenizer.json --local-dir paligemma`, once.
"""

from typing import Any

from mmjax.data import Decode, Mixture, PickCaption, Resize, SentencePiece, Subwords, Tfds, TokenizePrefixed
from mmjax.evaluate import Captions, Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, DecoderBlocks, LinearProjector, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

VOCAB, LENGTH, BATCH = 257_152, 8_192, 256  # Gemma's 256,000 pieces, 1,024 places, 128 segments
PROMPT, CAPTIONS, SIDE, TINY_PIECES, TINY_LENGTH = "caption en", 586_363, 96, 128, 80
STAGE1, BOTH = "/mnt/bucket/paligemma1", ("towers.image", "objectives.caption")
BIG: dict[str, Any] = {"activation": "gelu_tanh", "remat": "full", "dtype": "bfloat16"}
GEMMA: dict[str, Any] = {"norms": "rms_offset", "gated": True, "bias": False, "kv_heads": 1}


@experiment
def parts(image: Blocks, words: DecoderBlocks, patch: int, size: int, vocab: int, length: int) -> dict[str, Any]:
    decoder = TextDecoder(
        vocab=vocab,
        length=length,
        blocks=words,
        positions="rotary",
        prefix={"image": LinearProjector(zeros=True)},
        scaled=True,
        token_std=words.width**-0.5,
    )
    return {
        "towers": {"image": ViT(patch=patch, size=size, pooling="mean", blocks=image)},
        "objectives": {"caption": Caption(decoder, reads=("image",), mean="texts")},
    }


@experiment
def published(size: int, data: str, length: int, start: dict[str, Any], steps: int, **recipe: Any) -> Experiment:
    image = Blocks(width=1_152, depth=27, heads=16, mlp_dim=4_304, **BIG)
    words = DecoderBlocks(width=2_048, depth=18, heads=8, head_dim=256, mlp_dim=16_384, **GEMMA, **BIG)
    cut = TokenizePrefixed(Subwords(VOCAB, "paligemma/tokenizer.json", end="<eos>"), length, prefix=PROMPT)
    return Experiment(
        **parts(image, words, 14, size, VOCAB, LENGTH),
        data=Mixture(
            {"captions": 1.0},
            sources={"captions": Tfds(data, fields={"text": "caption"})},
            transforms={"image": (Decode(upright=False), Resize(size)), "text": (PickCaption(), cut)},
            workers=16,
        ),
        optimizer=AdamW(clip_norm=1.0, b2=0.999, **recipe),
        steps=steps,
        batch_size=BATCH,
        mesh=Mesh(fsdp=8),
        init=start,
    )


@experiment
def stage1() -> Experiment:
    """2,923,335,408 parameters, a billion examples of texts up to 128 tokens."""
    start = {"towers.image": Load("hf:google/siglip-so400m-patch14-224")}
    recipe: dict[str, Any] = {
        "peak_lr": 1e-4,
        "warmup_steps": 10_000,
        "weight_decay": 1e-5,
        "scale": {r"^towers_image/": 0.1},
    }
    return published(224, "laion400m/images", 129, start, 1_000_000_000 // BATCH, **recipe)


@experiment
def stage2() -> Experiment:
    """Fifty million examples of texts up to 512 tokens; positions of patches are stretched to the larger pictures."""
    recipe: dict[str, Any] = {"peak_lr": 2e-5, "warmup_steps": 2_000, "weight_decay": 2e-6}
    start = {part: Load(STAGE1) for part in BOTH}
    return published(448, "laion400m/images", 513, start, 50_000_000 // BATCH, **recipe)


@experiment
def coco() -> Experiment:
    """Five epochs, which see each caption of a picture once."""
    recipe: dict[str, Any] = {"peak_lr": 1e-5, "warmup_steps": 114, "weight_decay": 1e-6}
    start = {part: Load(STAGE1) for part in BOTH}
    return published(224, "coco_pairs", 33, start, CAPTIONS // BATCH, **recipe)


@experiment
def tiny() -> Experiment:
    """On the demo data; no line break ends the prompt: pieces that are trained here have none."""
    pieces = SentencePiece(TINY_PIECES, name="described_emoji")
    words = TokenizePrefixed(pieces, TINY_LENGTH, separator="", prefix=PROMPT)
    sizes: dict[str, Any] = {"width": 128, "heads": 4, "activation": "gelu_tanh"}
    blocks = DecoderBlocks(depth=2, mlp_dim=384, head_dim=64, **GEMMA, **sizes)
    return Experiment(
        **parts(Blocks(depth=3, **sizes), blocks, 12, SIDE, TINY_PIECES, TINY_LENGTH),
        data=Mixture(
            {"described_emoji": 1.0},
            sources={"described_emoji": Tfds("described_emoji", fields={"text": "captions", "captions": "captions"})},
            transforms={"image": (Decode(), Resize(SIDE)), "text": (PickCaption(), words)},
            cache=True,
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05),
        batch_size=64,
        steps=600,
        evaluators=[Losses(split="test", batches=4, when="end"), Captions("caption", split="test", when="end")],
        save_every=100,
    )
