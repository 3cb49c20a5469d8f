"""BERT: masked words and next sentences of pairs of segments (Devlin et al. 2018, arXiv:1810.04805).

    mmjax train experiments/bert.py:base --workdir /mnt/bucket/bert          # 900,000 steps of 256 pairs, length 128
    mmjax train experiments/bert.py:base_512 --workdir /mnt/bucket/bert_512  # then 100,000 at length 512
    mmjax train experiments/bert.py:tiny --workdir runs/bert_tiny            # minutes on a CPU, on the demo data

BooksCorpus isn't given out any more: the English Wikipedia stands in (`mmjax prepare wikipedia/20230601.en`, once). The
vocabulary is the released one: `hf download google-bert/bert-base-uncased vocab.txt --local-dir bert-base-uncased`.
The last tenth of the steps, at length 512, is a run of its own: it takes tower and heads of the first (`init`; set
the path to your workdir) and goes on from its last learning rate. Moments start afresh, so it warms up again.
What differs from the released code: a document gives one pair an epoch, from a random place, whatever its length; masks
are drawn anew each time instead of ten times beforehand; [UNK] and the ids below [MASK] are never chosen nor drawn; the
weights of attention are not dropped out; sentences of Wikipedia end at `.`, `!` or `?` before a space.
"""

from typing import Any

from mmjax.data import Documents, EmojiCharts, Mixture, SentencePair, SentencePiece, Subwords, Tfds
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Load, Mesh, experiment
from mmjax.models import Blocks, TextTransformer
from mmjax.objectives import Corrupt, MaskedText, NextSentence
from mmjax.optim import AdamW

VOCAB, MASK = 30_522, 103  # of the released vocabulary; below MASK are [CLS], [SEP], [UNK] and unused ones
TINY_VOCAB, TINY_MASK = 512, 4  # ids of all vocabularies that are trained here
POST_LN: Any = {"norm": "post", "norm_eps": 1e-12, "inits": "bert", "dropout": 0.1}
POOLER: Any = {"pooling": "cls", "projection_bias": True, "projection_tanh": True}


@experiment
def text(vocab: int, length: int, width: int, depth: int, heads: int, **more: Any) -> TextTransformer:
    blocks = Blocks(width=width, depth=depth, heads=heads, **POST_LN, **more)
    tables = {"vocab": vocab, "length": length, "types": 2, "position_std": 0.02}
    return TextTransformer(**tables, pre_norm=True, blocks=blocks, embed_dim=width, **POOLER)


@experiment
def heads(vocab: int, mask_id: int) -> dict[str, Any]:
    """Both read the same corrupted text, which is encoded once."""
    drawn: dict[str, Any] = {"vocab": vocab, "mask_id": mask_id, "first_id": mask_id + 1}
    return {"masked": MaskedText(**drawn, norm_eps=1e-12, tied=True), "next": NextSentence(Corrupt(**drawn))}


@experiment
def wikipedia(length: int) -> Mixture:
    text = Tfds("wikipedia/20230601.en", splits={"train": "train[:99%]", "validation": "train[99%:]"})
    sentences = Documents(text, between=r"\n+|(?<=[.!?])\s+")
    pair = SentencePair(Subwords(VOCAB, "bert-base-uncased/vocab.txt"), length)
    return Mixture({"wikipedia": 1.0}, {"text": (pair,)}, {"wikipedia": sentences}, workers=16)


@experiment
def adam(peak_lr: float, end_lr: float, warmup_steps: int) -> AdamW:
    rate = {"peak_lr": peak_lr, "end_lr": end_lr, "warmup_steps": warmup_steps, "schedule": "linear"}
    undecayed = (r"(^|/)(bias|scale)$",)
    return AdamW(**rate, weight_decay=0.01, no_decay=undecayed, b2=0.999, eps=1e-6, bias_correction=False)


@experiment
def bert(width: int, depth: int, length: int, steps: int, optimizer: Any, init: Any) -> Experiment:
    return Experiment(
        towers={"text": text(VOCAB, 512, width, depth, width // 64, remat="full", dtype="bfloat16")},
        objectives=heads(VOCAB, MASK),
        data=wikipedia(length),
        optimizer=optimizer,
        batch_size=256,
        steps=steps,
        mesh=Mesh(fsdp=8),
        init=init,
        evaluators=[Losses()],
        evaluate_every=25_000,
    )


@experiment
def base() -> Experiment:
    """109,482,240 parameters, and 624,188 of the heads."""
    return bert(768, 12, 128, 900_000, adam(1e-4, end_lr=1e-5, warmup_steps=10_000), init={})


@experiment
def base_512() -> Experiment:
    """The last 100,000 steps of `base`."""
    start = {part: Load("/mnt/bucket/bert") for part in ("towers.text", "objectives.masked", "objectives.next")}
    return bert(768, 12, 512, 100_000, adam(1e-5, end_lr=0.0, warmup_steps=1_000), init=start)


@experiment
def large() -> Experiment:
    """335,141,888 parameters, and 1,084,220 of the heads; its last tenth goes as `base_512`."""
    return bert(1_024, 24, 128, 900_000, adam(1e-4, end_lr=1e-5, warmup_steps=10_000), init={})


@experiment
def tiny() -> Experiment:
    """The same on English names of emoji: a document is a subgroup of Unicode's chart, a sentence a name in it.

    "Next" tells whether B goes on with A's list. The model soon overfits the 83 lists that train."""
    pair = SentencePair(SentencePiece(TINY_VOCAB, name="emoji_charts"), 32)
    return Experiment(
        towers={"text": text(TINY_VOCAB, 32, width=128, depth=2, heads=4, remat="dots")},
        objectives=heads(TINY_VOCAB, TINY_MASK),
        data=Mixture({"emoji": 1.0}, {"text": (pair,)}, {"emoji": Documents(EmojiCharts("en"))}),
        # Moments that aren't corrected make the first steps several times longer: this is the peak of 1e-3 and more.
        optimizer=adam(5e-4, end_lr=0.0, warmup_steps=50),
        batch_size=64,
        steps=1_000,
        evaluators=[Losses(batches=8), Losses(split="test", batches=32, when="end")],
        evaluate_every=250,
        save_every=250,
    )
