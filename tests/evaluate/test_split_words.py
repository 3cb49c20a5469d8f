"""Sums over a split's words: those of each text alone, padding and texts that don't count left out; and perplexity."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.data import Folder, Mixture, Tokenize
from mmjax.data.pipeline import prepare
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError
from mmjax.evaluate import Perplexity
from mmjax.evaluate import split_words as module
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.split_words import Spelled, SplitWords
from mmjax.models import DecoderBlocks, TextDecoder
from mmjax.objectives import Caption, Pretrainer
from mmjax.runtime.mesh import Mesh

LENGTH, VOCAB = 6, 20
TEXTS = ["3 4 5", "6 7 8 9 10 11 12 13", "14", "", "15 16 3 4"]


class Numbers(Tokenizer):
    """Texts of numbers, which are the ids."""

    SUFFIX = ".numbers"
    model, vocab_size, pad, bos, eos = b"", VOCAB, 0, 1, 2

    def __init__(self, model: bytes = b""):
        pass

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("texts")
    rows = "".join(f"{name}\ttest\t{text}\n" for name, text in zip("abcde", TEXTS, strict=True))
    (folder / "table.tsv").write_text("id\tsplit\ttext\n" + rows)
    chain = (Tokenize(Numbers(), LENGTH, bos=True),)
    return prepare(
        Mixture({"texts": 1.0}, sources={"texts": Folder(str(folder / "table.tsv"))}, transforms={"text": chain})
    )


def test_the_sums_are_those_of_each_text_alone(data: Any) -> None:
    decoder = TextDecoder(vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(width=8, depth=1, heads=2))
    pretrainer = Pretrainer({}, {"words": Caption(decoder)})
    ids = [[1, *map(int, text.split()), 2] for text in TEXTS if text]
    ids = [each if len(each) <= LENGTH else [*each[: LENGTH - 1], 2] for each in ids]
    one = {"text": np.array([ids[0]], np.int32), "text_valid": np.ones(1, bool)}
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), one))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.float32(random.normal(size=x.shape)), shapes)
    own = variables["params"]["objectives_words"]["decoder"]
    table = own["token"]["embedding"].astype(np.float64)
    nats, hits, count = 0.0, 0, 0
    for each in ids:
        states: Any = decoder.apply(
            {"params": variables["params"]["objectives_words"]["decoder"]}, np.array([each[:-1]])
        )
        table = variables["params"]["objectives_words"]["decoder"]["token"]["embedding"].astype(np.float64)
        for state, target in zip(np.asarray(states[0], np.float64), each[1:], strict=True):
            logits = table @ state
            nats += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]
            hits, count = hits + int(logits.argmax() == target), count + 1
    mesh = Mesh().build(jax.devices()[:1])
    with jax.set_mesh(mesh):
        found = SplitWords(pretrainer, data, mesh, 2)(variables, "test", "words")
    np.testing.assert_allclose(found.nats, nats, rtol=1e-5)
    assert (found.words, found.hits, found.text_bytes) == (count, hits, None)
    with jax.set_mesh(mesh), pytest.raises(UserError, match=r"there is no objective 'word'.*did you mean words"):
        SplitWords(pretrainer, data, mesh, 2)(variables, "test", "word")


def test_bytes_are_those_of_texts_that_have_a_word_to_predict(data: Any, monkeypatch: Any) -> None:
    decoder = TextDecoder(vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(width=8, depth=1, heads=2))
    pretrainer = Pretrainer({}, {"words": Caption(decoder)})
    mask = np.array([[1, 1, 1], [1, 0, 0]], bool)
    batch = {"index": np.arange(2, dtype=np.uint32), "text": np.array([[1, 5, 2], [1, 0, 0]], np.int32)}
    batch |= {"text_mask": mask, "text_valid": np.ones(2, bool), "text_bytes": np.array([7, 30], np.int32)}
    variables = nn.unbox(pretrainer.init(jax.random.key(0), batch))
    monkeypatch.setattr(module, "evaluation_batches", lambda *_, **__: iter([(batch, {}), (batch, {})]))
    mesh = Mesh().build(jax.devices()[:1])
    with jax.set_mesh(mesh):
        found = SplitWords(pretrainer, data, mesh, 2)(variables, "test", "words")
    assert (found.words, found.text_bytes) == (4, 14)


class Saying:
    """Predictions that are given."""

    def __init__(self, *spelled: Any):
        self.spelled = Spelled(*spelled)

    def words(self, objective: str) -> Spelled:
        assert objective == "language"
        return self.spelled


def test_perplexity_is_e_to_the_mean_loss() -> None:
    embedded = Embedded({}, {}, split="test", predictions=Saying(30.0, 10, 4, 40))
    found = Perplexity("language")(embedded, lambda texts: np.zeros((0, 0)))
    np.testing.assert_allclose(found.pop("perplexity/language/perplexity"), np.exp(3.0))
    np.testing.assert_allclose(found.pop("perplexity/language/bits_per_token"), 3 / np.log(2))
    np.testing.assert_allclose(found.pop("perplexity/language/bits_per_byte"), 30 / np.log(2) / 40)
    assert found == {"perplexity/language/word_accuracy": 0.4, "perplexity/language/words": 10.0}


def test_a_split_without_words_or_a_model_says_so() -> None:
    none = Embedded({}, {}, split="test", predictions=Saying(0.0, 0, 0, None))
    with pytest.raises(UserError, match="the test split has no word that is predicted"):
        Perplexity("language", "test")(none, lambda texts: np.zeros((0, 0)))
    with pytest.raises(UserError, match="Perplexity needs the model: embeddings alone predict no words"):
        Perplexity("language")(replace(none, predictions=None), lambda texts: np.zeros((0, 0)))
