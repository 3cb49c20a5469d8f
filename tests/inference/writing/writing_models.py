"""Small models that write: of pictures, and of text alone."""

from typing import Any

import fiddle as fdl
import jax
import numpy as np

from mmjax.data import Decode, Lowercase, Mixture, Resize, SentencePiece, Tokenize, TokenizeConversation
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.experiment import Experiment, experiment
from mmjax.experiment.graph import build
from mmjax.inference.model import Model
from mmjax.interop.bundle import Bundle, variables_of
from mmjax.models import Blocks, Cross, DecoderBlocks, TextDecoder, TextTransformer, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW

SIDE, VOCAB, LENGTH, ROOM = 16, 64, 24, 192
TEXTS = ["a red dog rolls", "a blue cat runs", "the green ball rolls to the left", "the dog and the cat", "a big ball"]


@experiment
def captions() -> Experiment:
    size: dict[str, Any] = dict(width=16, depth=2, heads=2)
    return Experiment(
        towers={"image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size), embed_dim=8)},
        objectives={
            "caption": Caption(
                decoder=TextDecoder(
                    vocab=VOCAB,
                    length=LENGTH,
                    blocks=DecoderBlocks(**size),
                    cross="within",
                    context={"image": None},
                    tied=False,
                ),
                reads=("image",),
            )
        },
        data=Mixture(
            {},
            {
                "image": (Decode(), Resize(SIDE)),
                "text": (Lowercase(), Tokenize(SentencePiece(vocab_size=VOCAB), length=LENGTH, bos=True)),
            },
        ),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


@experiment
def language() -> Experiment:
    return Experiment(
        towers={},
        objectives={
            "caption": Caption(
                decoder=TextDecoder(
                    vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(width=16, depth=2, heads=2), tied=False
                )
            )
        },
        data=Mixture({}, {"text": (Tokenize(SentencePiece(vocab_size=VOCAB), length=LENGTH, bos=True),)}),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


@experiment
def answers() -> Experiment:
    """The decoder reads the question's tokens that have seen the picture."""
    size: dict[str, Any] = dict(width=16, depth=2, heads=2)
    words: Any = (Lowercase(), Tokenize(SentencePiece(vocab_size=VOCAB), length=LENGTH, bos=True))
    text = TextTransformer(vocab=VOCAB, length=LENGTH, pooling="mean", blocks=Blocks(**size))
    decoder = TextDecoder(
        vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(**size), cross="within", context={"text": None}, tied=False
    )
    return Experiment(
        towers={"image": ViT(patch=8, size=SIDE, pooling="mean", blocks=Blocks(**size)), "text": text},
        fusions={"read": Cross(reader="text", blocks=Blocks(**size))},
        objectives={"caption": Caption(decoder, text="answer", reads=("image", "text"), fusion="read")},
        data=Mixture({}, {"image": (Decode(), Resize(SIDE)), "text": words, "answer": words}),
        optimizer=AdamW(peak_lr=1e-3),
        batch_size=1,
        steps=1,
    )


def made(config: Any, tokenizer: PieceTokenizer) -> Model:
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.float32((0.5 if len(x.shape) > 1 else 0.1) * random.normal(size=x.shape)),
        variables_of(build(config)),
    )
    texts = [name for name, chain in config.data.transforms.items() if name in ("text", "answer")]
    return Model(Bundle(config, variables, dict.fromkeys(texts, tokenizer), "made"), batch_size=4)


def talking(config: Any, tokenizer: PieceTokenizer, end: float = -2.0, **fields: Any) -> Model:
    """The model of an experiment's, whose texts are conversations. end: the bias of the word that ends an answer.
    fields: of `TokenizeConversation`."""
    config.data.transforms["text"] = (fdl.Config(TokenizeConversation, SentencePiece(VOCAB), ROOM, **fields),)
    decoder = config.objectives["caption"].decoder
    decoder.length, decoder.head_bias = ROOM, True
    model = made(config, tokenizer)
    model.params["objectives_caption"]["decoder"]["bias"][tokenizer.eos] = end
    return model
