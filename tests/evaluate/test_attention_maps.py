"""What words look at, of a trained model: words of pieces, its maps, and the page that shows them."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError
from mmjax.evaluate import Retrieval
from mmjax.evaluate.attention_maps import words_of_pieces
from mmjax.evaluate.report.of_model import collectors
from mmjax.evaluate.report.page import About, page
from mmjax.inference.model import Model, load
from mmjax.models.layers.attention_maps import OFFSETS, WEIGHTS
from tests.evaluate.conftest import Drawn
from tests.tiny import draw
from tests.trained import Trained

TEXTS = ["a red disc", "a green square"]


class Pieces(Tokenizer):
    """Pieces by number, a space before those that begin a word; 0 fills up, 1 begins and 2 ends a text."""

    vocab_size, pad, bos, eos = 8, 0, 1, 2
    names = {3: " a", 4: " gre", 5: "en", 6: " ", 7: "disc"}

    def __init__(self) -> None:
        self.model = b""

    def decode(self, ids: Any) -> str:
        return "".join(self.names[id] for id in ids).strip()


def test_words_are_of_their_pieces() -> None:
    ids = np.array([1, 3, 4, 5, 6, 7, 2, 0, 0])
    assert words_of_pieces(Pieces(), ids) == [("a", [1]), ("green", [2, 3]), ("disc", [4, 5])]
    assert words_of_pieces(Pieces(), np.array([1, 2, 0])) == []


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    rng = np.random.default_rng(5)
    return [draw(0, 0, rng), draw(2, 1, rng)]


@pytest.mark.parametrize("objective", ["match", "shape"])
def test_maps_are_of_the_fusion_s_own_attention(reading: Model, pictures: list[Any], objective: str) -> None:
    """Rollout by NumPy, from the weights that the whole model keeps; each word is the mean of its pieces."""
    found = reading.explain(image=pictures, text=TEXTS, objective=objective, rule="rollout")
    arrays = reading.preprocess(image=pictures, text=TEXTS)
    batch: Any = arrays | {f"{name}_valid": np.ones(2, bool) for name in ("image", "text")}
    apply: Any = reading.experiment.pretrainer().apply
    _, kept = apply(reading.variables, batch, objective, method="predict", mutable=[WEIGHTS])
    patches, words = 4, 16
    for row, (maps, text) in enumerate(zip(found, TEXTS, strict=True)):
        assert " ".join(maps.words) == text
        if objective == "match":  # one layer: words see words, then patches
            blocks = kept[WEIGHTS]["fusions_reader"]["transformer"]["blocks"]
            own, cross = (
                np.asarray(blocks[name]["weights"][0])[0, row].mean(axis=0) for name in ("attention", "cross")
            )
            whole = np.eye(words + patches)
            for attention, keys in ((own, slice(0, words)), (cross, slice(words, None))):
                layer = np.eye(words + patches)
                layer[:words, keys] += attention
                whole = layer / layer.sum(axis=1, keepdims=True) @ whole
            looks = whole[:words, words:]
        else:  # one layer over a CLS, the patches and the words
            weights = kept[WEIGHTS]["fusions_both"]["transformer"]["blocks"]["attention"]["weights"][0]
            layer = np.eye(1 + patches + words) + np.asarray(weights)[0, row].mean(axis=0)
            looks = (layer / layer.sum(axis=1, keepdims=True))[1 + patches :, 1 : 1 + patches]
        pieces = words_of_pieces(reading._chains.tokenizers["text"], arrays["text"][row])
        expected = [looks[places].mean(axis=0).reshape(2, 2) for _, places in pieces]
        np.testing.assert_allclose(maps.maps["image"], expected, rtol=0, atol=1e-5)
    alone = reading.explain(image=pictures[1], text=TEXTS[1], objective=objective, rule="rollout")
    np.testing.assert_allclose(alone.maps["image"], found[1].maps["image"], rtol=0, atol=1e-5)


def test_relevance_is_the_default_and_is_of_the_logit(reading: Model, pictures: list[Any]) -> None:
    """Of one layer, from equations 5, 6 and 10 by NumPy: words see words, then patches, which see nothing."""
    found = reading.explain(image=pictures, text=TEXTS, objective="match")
    arrays = reading.preprocess(image=pictures, text=TEXTS)
    batch: Any = arrays | {f"{name}_valid": np.ones(2, bool) for name in ("image", "text")}
    apply: Any = reading.experiment.pretrainer().apply

    def together(offsets: Any) -> Any:
        given = reading.variables | {OFFSETS: {"fusions_reader": offsets}}
        logits, kept = apply(given, batch, "match", method="predict", mutable=[WEIGHTS])
        return logits[:, 1].sum(), kept[WEIGHTS]["fusions_reader"]

    shapes = jax.eval_shape(lambda: together({})[1])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    slopes, kept = jax.grad(together, has_aux=True)(zeros)
    for row, (maps, text) in enumerate(zip(found, TEXTS, strict=True)):
        counted = []
        for name in ("attention", "cross"):
            slope, weight = (
                np.asarray(tree["transformer"]["blocks"][name]["weights"][0])[0, row] for tree in (slopes, kept)
            )
            counted.append(np.maximum(slope * weight, 0).mean(axis=0))
        own, cross = counted
        total = own.sum(axis=1, keepdims=True)
        across = (np.eye(16) + np.divide(own, total, out=np.zeros_like(own), where=total > 0)).T @ cross
        pieces = words_of_pieces(reading._chains.tokenizers["text"], arrays["text"][row])
        expected = [across[places].mean(axis=0).reshape(2, 2) for _, places in pieces]
        assert " ".join(maps.words) == text
        assert maps.maps["image"].max() > 0
        np.testing.assert_allclose(maps.maps["image"], expected, rtol=1e-4, atol=1e-4 * np.max(expected))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "gradient"}, r"explain\(\)\(rule=...\)='gradient'"),
        ({"objective": "words"}, r"asks 'words', but .* shape, match"),
        ({"image": None}, r"explain\(\) needs image=... and text=...; image isn't given"),
        ({"text": TEXTS[0]}, "reads the inputs of each example together"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    reading: Model, pictures: list[Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        reading.explain(**({"image": pictures, "text": TEXTS, "objective": "match"} | given))


def test_a_model_without_a_fusion_says_so(trained: Trained, pictures: list[Any]) -> None:
    with pytest.raises(UserError, match="needs a model with a fusion of tokens whose attention can be followed"):
        load(trained.workdir).explain(image=pictures, text=TEXTS)


def test_the_page_shows_what_words_look_at(drawn: Drawn) -> None:
    judges: list[Any] = [Retrieval(same="text")]
    found = collectors(judges, drawn.data)
    drawn.judged([*judges, *found])
    text = page(About("drawn", None), found[0].kept, [])
    assert ">Attention</h2>" in text
    section = text.partition(">Attention</h2>")[2].partition("</h2>")[0]
    assert section.count("<figure") == 4
    assert section.count("data:image/jpeg") == 4 + 4 * 3  # the picture, and one for each of three words
    assert "where &#x27;red&#x27; looks" in section
