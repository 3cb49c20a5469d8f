"""Named entities in texts, by BERT alone and beside a picture (Devlin et al. 2018, arXiv:1810.04805, section 5.3).

    mmjax train experiments/ner.py:base --workdir /mnt/bucket/ner          # CoNLL-2003's nine tags, from BERT base
    mmjax train experiments/ner.py:tiny --workdir runs/ner_tiny            # words alone, minutes on a CPU, demo data
    mmjax train experiments/ner.py:tiny_seen --workdir runs/ner_tiny_seen  # the same words beside their pictures

A tag is predicted at the first piece of each word, and judged by the F1 of whole entities. `conll2003` is a TFDS
dataset of your own making, with the features `tokens` and `ner_tags` of its 14,041 sentences that train. The model and
its vocabulary are the cased ones: `hf download google-bert/bert-base-cased vocab.txt tokenizer_config.json --local-dir
bert-base-cased`. Rate, batch and epochs are of the ranges that the paper searches for each task.
What differs from it: a sentence is read alone, without its document; weights of attention, and what the layer that tags
reads, are not dropped out.

A sentence of the demo data `tagged_emoji` names two things: one by its name, the other by a nonce name, which only the
picture explains. Of the kinds of both words alone tell three fifths at most, were all names known; those of the test
are in no training sentence.
"""

from typing import Any

from mmjax.data import (
    EMOJI_TAGS,
    Decode,
    Lowercase,
    Mixture,
    RandomAffine,
    RandomFlip,
    Resize,
    SentencePiece,
    Subwords,
    TagWords,
    Tfds,
    TokenizeTagged,
)
from mmjax.evaluate import Losses, TagF1
from mmjax.experiment import Experiment, Load, experiment
from mmjax.models import Blocks, Cross, TextTransformer, ViT
from mmjax.objectives import TagTokens
from mmjax.optim import AdamW

CONLL = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
SENTENCES, EPOCHS, BATCH, LENGTH = 14_041, 3, 32, 256
STEPS = EPOCHS * SENTENCES // BATCH
VOCAB = 28_996  # of the released cased vocabulary
TINY_VOCAB, TINY_LENGTH, SIDE, WIDTH = 512, 40, 48, 128
POST_LN: Any = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
SMALL: Any = {"width": WIDTH, "heads": 4, "remat": "dots"}


@experiment
def text(vocab: int, length: int, **sizes: Any) -> TextTransformer:
    """BERT without its pooler: tokens are read."""
    tables = {"vocab": vocab, "length": length, "types": 2, "position_std": 0.02, "pooling": "cls"}
    return TextTransformer(**tables, pre_norm=True, blocks=Blocks(**POST_LN, **sizes))


@experiment
def adam(peak_lr: float, warmup_steps: int) -> AdamW:
    rate = {"peak_lr": peak_lr, "end_lr": 0.0, "warmup_steps": warmup_steps, "schedule": "linear"}
    return AdamW(**rate, weight_decay=0.01, no_decay=(r"(^|/)(bias|scale)$",), b2=0.999, eps=1e-6)


@experiment
def base() -> Experiment:
    """107,726,601 parameters, 6,921 of them the layer that tags."""
    return Experiment(
        towers={"text": text(VOCAB, 512, width=768, depth=12, heads=12, remat="full", dtype="bfloat16")},
        objectives={"tags": TagTokens(len(CONLL))},
        data=Mixture(
            {"conll2003": 1.0},
            {"text": (TokenizeTagged(Subwords(VOCAB, "bert-base-cased"), LENGTH, bos=True, classes=CONLL),)},
            {"conll2003": Tfds("conll2003", fields={"words": "tokens", "tags": "ner_tags"})},
            record_transforms=(TagWords(),),
        ),
        optimizer=adam(5e-5, warmup_steps=STEPS // 10),
        batch_size=BATCH,
        steps=STEPS,
        init={"towers.text": Load("hf:google-bert/bert-base-cased")},
        evaluators=[TagF1("tags"), TagF1("tags", split="test", when="end")],
        evaluate_every=STEPS // EPOCHS,
    )


@experiment
def tagging(towers: dict[str, Any], fusions: dict[str, Any], objective: TagTokens, image: dict[str, Any]) -> Experiment:
    """On the demo data."""
    words = TokenizeTagged(SentencePiece(TINY_VOCAB, name="tagged_emoji"), TINY_LENGTH, bos=True, classes=EMOJI_TAGS)
    return Experiment(
        towers={"text": text(TINY_VOCAB, TINY_LENGTH, depth=2, **SMALL), **towers},
        fusions=fusions,
        objectives={"tags": objective},
        data=Mixture(
            {"tagged_emoji": 1.0}, {"text": (Lowercase(), words), **image}, record_transforms=(TagWords(),), cache=True
        ),
        optimizer=adam(1e-3, warmup_steps=50),
        batch_size=128,
        steps=800,
        evaluators=[Losses(), TagF1("tags"), Losses(split="test", when="end"), TagF1("tags", split="test", when="end")],
        evaluate_every=200,
        save_every=200,
    )


@experiment
def tiny() -> Experiment:
    """Words alone."""
    return tagging({}, {}, TagTokens(len(EMOJI_TAGS)), {})


@experiment
def tiny_seen() -> Experiment:
    """The words' tokens read the picture's before they are tagged."""
    blocks = Blocks(depth=3, **SMALL)
    return tagging(
        towers={"image": ViT(patch=8, size=SIDE, cls=True, pooling="cls", blocks=blocks)},
        fusions={"reading": Cross(reader="text", blocks=Blocks(depth=2, **SMALL))},
        objective=TagTokens(len(EMOJI_TAGS), fusion="reading", beside=("image",)),
        image={
            "image": (Decode(), Resize(SIDE), RandomFlip(), RandomAffine(translate=0.1, degrees=15, scale=(0.7, 1.0)))
        },
    )
