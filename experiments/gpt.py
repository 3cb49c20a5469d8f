"""GPT-1 and GPT-2: language models (Radford et al. 2018; Radford et al. 2019).

    mmjax train experiments/gpt.py:gpt1 --workdir /mnt/bucket/gpt1              # 12 layers, post-norm
    mmjax train experiments/gpt.py:gpt2_small --workdir /mnt/bucket/gpt2_small  # 124M; gpt2_medium, _large, _xl
    mmjax train experiments/gpt.py:tiny --workdir runs/gpt_tiny                 # minutes on a CPU

There is no tower: the decoder is the objective's. Neither BooksCorpus nor WebText is given out: the English Wikipedia
and C4 stand in (`mmjax prepare wikipedia/20230601.en c4/en`, once). The vocabularies are the released ones:
`hf download openai-community/gpt2 tokenizer.json --local-dir gpt2`, and of openai-community/openai-gpt into `gpt`.
OpenAI didn't publish how GPT-2 was optimised: that is nanoGPT's way here, with the paper's biases. `tiny` reads the
reference texts that Python carries, under its own licence (PSF). GPT-3 is in gpt3.py.
What differs: a row is the beginning of one document, not a piece of a stream of all; GPT-1's words aren't repaired by
ftfy and cut by spaCy; attention's weights are not dropped out.
"""

from typing import Any

from mmjax.data import Mixture, PickCaption, PythonTopics, SentencePiece, Subwords, Tfds, Tokenize
from mmjax.evaluate import Losses
from mmjax.experiment import Experiment, Mesh, experiment
from mmjax.models import DecoderBlocks, TextDecoder
from mmjax.objectives import Caption
from mmjax.optim import AdamW

TINY_VOCAB, TINY_LENGTH = 1_024, 128
LIKE: Any = {"activation": "gelu_tanh", "norm_eps": 1e-5}
LARGE: Any = {"remat": "full", "dtype": "bfloat16"}
UNDECAYED = (r"(^|/)(bias|scale)$",)  # what has two dimensions is decayed, the tables too


@experiment
def words(blocks: DecoderBlocks, vocab: int, length: int, position_std: float) -> dict[str, Any]:
    return {"words": Caption(TextDecoder(vocab=vocab, length=length, blocks=blocks, position_std=position_std))}


@experiment
def texts(name: str, vocab: int, path: str, length: int) -> Mixture:
    """Rows are one token longer than what the decoder reads: the first one isn't predicted."""
    source = Tfds(name, splits={"train": "train[:99%]", "validation": "train[99%:]"})
    chain = (PickCaption(), Tokenize(Subwords(vocab, path), length + 1, eos=False, pad=0))
    return Mixture({"texts": 1.0}, {"text": chain}, {"texts": source}, workers=16)


@experiment
def gpt1() -> Experiment:
    """116,534,784 parameters. 100 epochs of BooksCorpus, taken for a billion tokens."""
    blocks = DecoderBlocks(width=768, depth=12, heads=12, norm="post", inits="gpt1", dropout=0.1, **LIKE, **LARGE)
    return Experiment(
        towers={},
        objectives=words(blocks, 40_478, 512, position_std=0.02),
        data=texts("wikipedia/20230601.en", 40_478, "gpt", 512),
        optimizer=AdamW(peak_lr=2.5e-4, warmup_steps=2_000, weight_decay=0.01, no_decay=UNDECAYED, b2=0.999),
        batch_size=64,
        steps=3_000_000,
        mesh=Mesh(fsdp=8),
        evaluators=[Losses()],
        evaluate_every=50_000,
    )


@experiment
def gpt2(width: int, depth: int) -> Experiment:
    """Of 480 rows of 1,024 tokens, 600,000 times."""
    blocks = DecoderBlocks(width=width, depth=depth, heads=width // 64, inits="gpt2", **LIKE, **LARGE)
    rate = {"peak_lr": 6e-4, "end_lr": 6e-5, "warmup_steps": 2_000}
    return Experiment(
        towers={},
        objectives=words(blocks, 50_257, 1_024, position_std=0.01),
        data=texts("c4/en", 50_257, "gpt2", 1_024),
        optimizer=AdamW(**rate, weight_decay=0.1, no_decay=UNDECAYED, b2=0.95),
        batch_size=480,
        steps=600_000,
        mesh=Mesh(fsdp=8),
        evaluators=[Losses()],
        evaluate_every=10_000,
    )


@experiment
def gpt2_small() -> Experiment:
    return gpt2(768, 12)


@experiment
def gpt2_medium() -> Experiment:
    return gpt2(1_024, 24)


@experiment
def gpt2_large() -> Experiment:
    return gpt2(1_280, 36)


@experiment
def gpt2_xl() -> Experiment:
    return gpt2(1_600, 48)


@experiment
def tiny() -> Experiment:
    """The same on passages of 350 characters. They are few: in twice the steps the loss of others rises again."""
    blocks = DecoderBlocks(width=128, depth=4, heads=4, inits="gpt2", dropout=0.1, **LIKE)
    cut = Tokenize(SentencePiece(TINY_VOCAB, name="python_topics"), TINY_LENGTH + 1, bos=True, eos=False)
    return Experiment(
        towers={},
        objectives=words(blocks, TINY_VOCAB, TINY_LENGTH, position_std=0.01),
        data=Mixture({"python": 1.0}, {"text": (cut,)}, {"python": PythonTopics(350)}),
        optimizer=AdamW(peak_lr=2e-3, warmup_steps=50, weight_decay=0.1, no_decay=UNDECAYED, b2=0.95),
        batch_size=32,
        steps=300,
        evaluators=[Losses(batches=8), Losses(split="test", batches=8, when="end")],
        evaluate_every=100,
        save_every=100,
    )
