"""BLIP's answers to questions on pictures, written word by word (Li et al. 2022, arXiv:2201.12086).

    mmjax train experiments/blip_vqa.py:base --workdir /mnt/bucket/blip_vqa    # ViT-B/16 at 480 pixels
    mmjax train experiments/blip_vqa.py:tiny --workdir runs/blip_vqa_tiny      # minutes on a CPU, on the demo data

The text's encoder reads the question with its picture, by a cross-attention in each of its layers; the decoder, BERT's
layers too, reads the question's tokens that come of it, and writes the answer behind [DEC]. A step learns one of the
answers that people gave. A loaded model writes: `answer(image="cat.png", text="what is it?")`. `Answers(...,
options=...)` picks the likeliest of all that there are, where the paper first takes 128 by their first word.

`vqa_pairs` stands for a TFDS dataset of one's own: `question`, and `answers`, a list in which an answer stands as often
as it was given. It starts from the released model, where the paper starts from what was only pretrained. Pictures are
squeezed to squares, neither cropped nor recoloured; the rate falls in a straight line to where a tenth less after each
epoch leads; the number of questions is remembered, not checked.
"""

from typing import Any

from mmjax.data import (
    AskedScenes,
    Decode,
    Lowercase,
    Mixture,
    PickCaption,
    RandomAffine,
    Renamed,
    Resize,
    SentencePiece,
    Subwords,
    Tfds,
    Tokenize,
)
from mmjax.evaluate import Answers, Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, Cross, DecoderBlocks, TextDecoder, TextTransformer, Trunk, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

RELEASED, FILE = "hf:Salesforce/blip-vqa-base", "bert-base-uncased/vocab.txt"
PIECES, VOCAB = 30_522, 30_524  # of BERT's vocabulary; behind it [DEC] and [ENC]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EPOCHS, QUESTIONS, BATCH, PEAK = 10, 1_400_000, 256, 2e-5
TINY_PIECES, TINY_LENGTH, TINY_ANSWERS, SIDE = 1_024, 28, 64, 96
BERT: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
BIG: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12, "remat": "full", "dtype": "bfloat16"}
SMALL: dict[str, Any] = {"width": 128, "heads": 4, "remat": "dots"}


@experiment
def parts(blocks: Any, patch: int, side: int, vocab: int, answers: int, length: int) -> dict[str, Any]:
    """Towers, whose embeddings nothing reads, and the fusion by the text's own transformer. blocks: the picture's, the
    text's, and the decoder's."""
    image, text, words = blocks
    trunk = Trunk(blocks=text, cls=False, kinds=False, cross=True)
    size: dict[str, Any] = {"length": length, "position_std": 0.02}
    head: dict[str, Any] = {"head_bias": True, "head_layer": True, "norm_embedded": True}
    decoder = TextDecoder(vocab=answers, blocks=words, cross="within", context={"text": None}, **size, **head)
    read: dict[str, Any] = {"text": "answer", "reads": ("image", "text"), "fusion": "grounded"}
    return {
        "towers": {
            "image": ViT(patch=patch, size=side, cls=True, pooling="cls", blocks=image, mean=MEAN, std=STD),
            "text": TextTransformer(vocab=vocab, trunk=trunk, pooling="cls", pre_norm=True, **size),
        },
        "fusions": {"grounded": Cross(reader="text", trunk=trunk)},
        "objectives": {"answer": Caption(decoder, label_smoothing=0.1, **read)},
    }


@experiment
def base() -> Experiment:
    blocks = Blocks(norm_eps=1e-5, **BIG), Blocks(**BERT, **BIG), DecoderBlocks(**BERT, **BIG)
    begun = (PickCaption(), Lowercase())
    asked = (*begun, Tokenize(Subwords(PIECES, FILE), 35, bos=True))
    said = (*begun, Tokenize(Subwords(PIECES + 1, FILE, begin="[DEC]"), 20, bos=True))
    return Experiment(
        **parts(blocks, 16, 480, VOCAB, VOCAB, 512),
        data=Mixture(
            {"vqa_pairs": 1.0},
            sources={"vqa_pairs": Tfds("vqa_pairs", fields={"text": "question", "answer": "answers"})},
            transforms={"image": (Decode(upright=False), Resize(480)), "text": asked, "answer": said},
            workers=16,
        ),
        optimizer=AdamW(
            peak_lr=PEAK, end_lr=PEAK * 0.9**EPOCHS, schedule="linear", weight_decay=0.05, b2=0.999, clip_norm=None
        ),
        batch_size=BATCH,
        steps=EPOCHS * QUESTIONS // BATCH,
        mesh=Mesh(fsdp=8),
        init={part: Load(RELEASED) for part in ("towers.image", "towers.text", "objectives.answer")},
    )


@experiment
def tiny() -> Experiment:
    """From scratch, on questions that `vqa.py:tiny` learns as labels: the same towers, with answers as words."""
    post: dict[str, Any] = {"norm": "post", "norm_eps": 1e-12, "depth": 2, "inits": "bert", **SMALL}
    begun = (PickCaption(), Lowercase())
    pieces = SentencePiece(TINY_PIECES, name="questions", max_captions=20_000)
    said = SentencePiece(TINY_ANSWERS, name="answers", model_type="word", max_captions=20_000)
    seen = (Decode(), Resize(SIDE), RandomAffine(translate=0.03, scale=(0.95, 1.05)))
    asked, answered = (*begun, Tokenize(pieces, TINY_LENGTH, bos=True)), (*begun, Tokenize(said, 3, bos=True))
    told: dict[str, Any] = {"kind": "kind", "most": 2}
    blocks = Blocks(depth=3, **SMALL), Blocks(**post), DecoderBlocks(**post)
    return Experiment(
        **parts(blocks, 12, SIDE, TINY_PIECES, TINY_ANSWERS, TINY_LENGTH),
        data=Mixture(
            {"asked_emoji": 1.0},
            sources={"asked_emoji": Renamed(AskedScenes(Tfds("asked_emoji")), {"text": "question"})},
            transforms={"image": seen, "text": asked, "answer": answered},
        ),
        optimizer=AdamW(peak_lr=1e-3, warmup_steps=50, weight_decay=0.05),
        batch_size=128,
        steps=1_200,
        evaluators=[Losses(batches=4), Answers("answer", **told), Answers("answer", split="test", when="end", **told)],
        evaluate_every=200,
        save_every=200,
    )
