"""GPT-3: language models of eight sizes, 125 million to 175 billion parameters (Brown et al. 2020, arXiv:2005.14165).

    mmjax train experiments/gpt3.py:small --workdir /mnt/bucket/gpt3_small  # medium, large, xl, b2_7, b6_7, b13, b175

Every second layer attends to the `WINDOW` last tokens alone; the paper alternates dense and locally banded layers, and
doesn't tell how wide the bands are. A window of 2,048 or None gives GPT-2's model. GPT-3's mixture of texts isn't given
out: C4 stands in (`mmjax prepare c4/en`, once). The vocabulary is GPT-2's: `hf download openai-community/gpt2
tokenizer.json --local-dir gpt2`. `gpt.py:tiny` is the same at a size for a CPU, without windows.
What differs: a row is the beginning of one document, not 2,048 tokens of a stream of all; the batch has its full size
from the start instead of growing from 32,000 tokens; the cosine reaches a tenth of the peak at the end, 300 billion
tokens, and not after 260.
"""

from typing import Any

from mmjax.data import Mixture, PickCaption, Subwords, Tfds, Tokenize
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import DecoderBlocks, TextDecoder
from mmjax.objectives import Caption
from mmjax.optim import AdamW

VOCAB, LENGTH = 50_257, 2_048
WINDOW = 256  # not the paper's, which tells none
TOKENS, WARMUP = 300_000_000_000, 375_000_000  # in all, and those of the warm-up
LARGE: Any = {"remat": "full", "dtype": "bfloat16"}


@experiment
def texts() -> Mixture:
    """Rows are one token longer than what the decoder reads: the first one isn't predicted."""
    source = Tfds("c4/en", splits={"train": "train[:99%]", "validation": "train[99%:]"})
    chain = (PickCaption(), Tokenize(Subwords(VOCAB, "gpt2"), LENGTH + 1, eos=False, pad=0))
    return Mixture({"texts": 1.0}, {"text": chain}, {"texts": source}, workers=16)


@experiment
def gpt3(width: int, depth: int, heads: int, rows: int, peak_lr: float) -> Experiment:
    """rows: of a batch, of 2,048 tokens each."""
    like = {"activation": "gelu_tanh", "norm_eps": 1e-5, "inits": "gpt2", "window": WINDOW}
    blocks = DecoderBlocks(width=width, depth=depth, heads=heads, **like, **LARGE)
    rate = {"peak_lr": peak_lr, "end_lr": peak_lr / 10, "warmup_steps": WARMUP // (rows * LENGTH)}
    return Experiment(
        towers={},
        objectives={"words": Caption(TextDecoder(vocab=VOCAB, length=LENGTH, blocks=blocks))},
        data=texts(),
        optimizer=AdamW(**rate, weight_decay=0.1, no_decay=(r"(^|/)(bias|scale)$",), b2=0.95),
        batch_size=rows,
        steps=TOKENS // (rows * LENGTH),
        mesh=Mesh(fsdp=8),
        evaluators=[Losses()],
        evaluate_every=10_000,
    )


@experiment
def small() -> Experiment:
    return gpt3(768, 12, 12, 256, 6e-4)


@experiment
def medium() -> Experiment:
    return gpt3(1_024, 24, 16, 256, 3e-4)


@experiment
def large() -> Experiment:
    return gpt3(1_536, 24, 16, 256, 2.5e-4)


@experiment
def xl() -> Experiment:
    """16 heads: the paper's table says 24 of 128 channels, which are more than the width of 2,048."""
    return gpt3(2_048, 24, 16, 512, 2e-4)


@experiment
def b2_7() -> Experiment:
    return gpt3(2_560, 32, 32, 512, 1.6e-4)


@experiment
def b6_7() -> Experiment:
    return gpt3(4_096, 32, 32, 1_024, 1.2e-4)


@experiment
def b13() -> Experiment:
    """A width of 5,120: the paper's table says 5,140, which 40 heads of 128 channels don't fill."""
    return gpt3(5_120, 40, 40, 1_024, 1e-4)


@experiment
def b175() -> Experiment:
    return gpt3(12_288, 96, 96, 1_536, 6e-5)
