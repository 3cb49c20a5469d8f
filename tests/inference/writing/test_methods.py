"""What a loaded model writes is what its decoder gives word by word, of the prompt and the towers' tokens."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.data import Decode, Lowercase, Mixture, Resize, SentencePiece, Tokenize
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.experiment import Experiment, experiment
from mmjax.experiment.graph import build
from mmjax.inference.model import Model
from mmjax.interop.bundle import Bundle, variables_of
from mmjax.models import Blocks, DecoderBlocks, TextDecoder, ViT
from mmjax.objectives import Caption
from mmjax.optim import AdamW
from tests.inference.writing.dense import all_logits, dense_greedy, log_softmax

SIDE, VOCAB, LENGTH = 16, 64, 24
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


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20))


def made(config: Any, tokenizer: PieceTokenizer) -> Model:
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.float32((0.5 if len(x.shape) > 1 else 0.1) * random.normal(size=x.shape)),
        variables_of(build(config)),
    )
    return Model(Bundle(config, variables, {"text": tokenizer}, "made"), batch_size=4)


@pytest.fixture(scope="module")
def captioner(tokenizer: PieceTokenizer) -> Model:
    return made(captions.as_buildable(), tokenizer)


@pytest.fixture(scope="module")
def speaker(tokenizer: PieceTokenizer) -> Model:
    return made(language.as_buildable(), tokenizer)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def decoder_of(model: Model) -> tuple[Any, Any]:
    return model.experiment.objectives["caption"].decoder, model.params["objectives_caption"]["decoder"]


def views_of(model: Model, picture: np.ndarray) -> dict[str, Any]:
    params = {"params": model.params["towers_image"]}
    return {"image": model.towers["image"].apply(params, picture[None], method="tokens")}


def test_a_caption_is_the_dense_decoder_s(captioner: Model, tokenizer: PieceTokenizer, pictures: np.ndarray) -> None:
    found = captioner.caption(list(pictures), max_new_tokens=9, details=True)
    assert len({one.text for one in found}) > 1  # it looks at the picture
    for picture, one in zip(pictures, found, strict=True):
        views = views_of(captioner, picture)
        ids, scores = dense_greedy(*decoder_of(captioner), [tokenizer.bos], 9, [tokenizer.eos], views)
        assert list(one.ids) == ids
        np.testing.assert_allclose(one.log_probabilities, scores, atol=1e-4)
        assert one.text == tokenizer.decode(ids)
        assert captioner.caption(picture, max_new_tokens=9) == one.text
