import numpy as np
import pytest

from mmjax.data import SentencePiece
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.inference.model import Model
from tests.inference.writing.writing_models import SIDE, TEXTS, VOCAB, captions, language, made, talking


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    return PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20))


@pytest.fixture(scope="module")
def captioner(tokenizer: PieceTokenizer) -> Model:
    return made(captions.as_buildable(), tokenizer)


@pytest.fixture(scope="module")
def speaker(tokenizer: PieceTokenizer) -> Model:
    return made(language.as_buildable(), tokenizer)


@pytest.fixture(scope="module")
def onlooker(tokenizer: PieceTokenizer) -> Model:
    """A model of conversations whose layers read a picture, and that writes of texts alone too."""
    config = captions.as_buildable()
    config.objectives["caption"].alone = True
    return talking(config, tokenizer)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
