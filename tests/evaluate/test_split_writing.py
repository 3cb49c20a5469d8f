"""What a model writes of a split is what it writes of the same pictures by hand; and the scores of captions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax.data import Folder, SentencePiece
from mmjax.data.evaluation import whole_column
from mmjax.data.pipeline import prepare
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.evaluate import Captions, RankedAnswers
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators import captions as module
from mmjax.evaluate.metrics.written.caption_scores import caption_scores
from mmjax.evaluate.metrics.written.java_metrics import JavaScores
from mmjax.evaluate.split_writing import SplitWriter, WrittenSplit
from mmjax.evaluate.writing.beams import Beams
from mmjax.experiment.graph import build
from mmjax.runtime.mesh import Mesh
from tests.inference.writing.writing_models import SIDE, TEXTS, VOCAB, captions, made

OPTIONS = [["a big ball", "the dog"], ["red dog", "cat", "ball"], ["no picture"], [], ["cat"]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: Any) -> Any:
    """The model, its pictures, of which the third can't be read, and the split's texts by both ways of writing."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    names = [f"{name}.png" for name in "abcde"]
    for name in names:
        Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes(b"no picture")
    table = "".join(f"{name}\ttest\ta big ball\n" for name in names)
    (folder / "table.tsv").write_text("image\tsplit\ttext\n" + table)
    tokenizer = PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20))
    config = captions.as_buildable()
    model = made(config, tokenizer)
    mixture = replace(build(config).data, weights={"own": 1.0}, sources={"own": Folder(str(folder / "table.tsv"))})
    data = prepare(mixture, tokenizers={"text": tokenizer})
    mesh = Mesh().build(jax.devices()[:1])
    with jax.set_mesh(mesh):
        writer = SplitWriter(build(config).pretrainer(), data, mesh, 2)
        variables = {"params": model.params}
        texts = {width: writer(variables, "test", "caption", "", 6, width and Beams(width)) for width in (None, 3)}
        prompts = ["", "a", "a", "the", "a"]
        behind = writer(variables, "test", "caption", prompts, 6)
        scores = writer.option_scores(variables, "test", "caption", ["", "a", "a", "the", "a"], OPTIONS)
        with pytest.raises(UserError, match="there is nothing to write of by 'words'"):
            writer(variables, "test", "words")
    return model, [folder / name for name in names], (texts, behind), scores, data


def test_a_split_is_written_of_as_its_pictures_are_by_hand(written: Any) -> None:
    model, files, (texts, behind), _, data = written
    there = [0, 1, 3, 4]
    assert behind.rows == there
    prompts = ["", "a", "the", "a"]
    assert behind.texts == model.caption([files[i] for i in there], prompts, max_new_tokens=6)
    for width, found in texts.items():
        assert found.rows == there
        assert found.texts == model.caption([files[i] for i in there], max_new_tokens=6, beams=width)
    assert len(set(texts[None].texts)) > 1
    assert whole_column(data, "test", "text") == ["a big ball"] * 5
    with pytest.raises(UserError, match=r"no source has a column 'txt', there are .*; did you mean text"):
        whole_column(data, "test", "txt")


def test_options_are_scored_behind_their_own_prompts(written: Any) -> None:
    model, files, _, scores, _ = written
    assert scores.keys() == {0, 1, 4}
    for row, prompt in ((0, ""), (1, "a"), (4, "a")):
        want = model.log_likelihood(OPTIONS[row], prompt, image=files[row])
        np.testing.assert_allclose(scores[row], want, atol=1e-5)


class Ranking:
    """The likelihoods of options that are given; the third example reads nothing."""

    def __init__(self, columns: dict[str, list[Any]]):
        self.column = columns.__getitem__

    def option_scores(self, objective: str, prompts: Any, options: Any) -> Any:
        assert (objective, prompts) == ("caption", ["what", "where", "", "who"])
        return {0: np.array([-1.0, -2.0]), 1: np.array([-3.0, -2.0, -1.0]), 3: np.array([-5.0])}


def test_answers_are_ranked_among_their_options() -> None:
    columns: dict[str, list[Any]] = {
        "options": [["a", "b"], ["c", "d", "e"], ["f"], ["g"]],
        "right": ["a", 1, "f", "g"],
        "asks": ["what", "where", None, "who"],
        "turn": [1, 2, 1, 2],
        "shares": [[0.0, 1.0], [0.0, 0.5, 1.0], None, None],
    }
    embedded = Embedded({}, {}, split="test", predictions=Ranking(columns))
    found = RankedAnswers("caption", prompt="asks", relevance="shares", turn="turn")(
        embedded, lambda texts: np.zeros(0)
    )
    found = {name.removeprefix("ranked/caption/"): value for name, value in found.items()}
    assert found["R@1"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["mean_rank"] == pytest.approx(4 / 3)
    assert (found["R@1/1"], found["R@1/2"], found["examples"]) == (1.0, 0.5, 3.0)
    assert found["ndcg"] == pytest.approx((0 + 1) / 2)  # the first's one relevant option stands second of k = 1
    wrong = replace(embedded, predictions=Ranking(columns | {"right": ["z", 1, "f", "g"]}))
    with pytest.raises(UserError, match="the right option of question 0 is -1, which isn't among its options"):
        RankedAnswers("caption", prompt="asks")(wrong, lambda texts: np.zeros(0))


def test_java_s_metrics_come_with_the_others_or_a_warning(monkeypatch: Any) -> None:
    embedded = Embedded({}, {}, split="test", predictions=Having([["a red dog"], ["no"], "two black cats", None]))
    judge = Captions("caption", references="said", prompt="a", most=5, java=True)
    seen: list[Any] = []

    def scored(texts: Any, references: Any) -> JavaScores:
        seen.append((texts, references))
        return JavaScores({"meteor": 0.25}, {}, "spice left out")

    monkeypatch.setattr(module, "java_metrics", scored)
    with pytest.warns(UserWarning, match="spice left out"):
        found = judge(embedded, lambda texts: np.zeros((0, 0)))
    assert found["captions/caption/meteor"] == 0.25
    assert seen == [([["a", "red", "dog"], ["two", "cats"]], [[["a", "red", "dog"]], [["two", "black", "cats"]]])]


class Having:
    """Predictions that are given."""

    def __init__(self, said: list[Any]):
        self.said = said

    def column(self, name: str) -> list[Any]:
        assert name == "said"
        return self.said

    def written(self, objective: str, *asked: Any) -> WrittenSplit:
        assert (objective, *asked) == ("caption", "a", 5, None)
        return WrittenSplit(["a red dog", "two cats", "a hat"], [0, 2, 3])


def test_captions_are_scored_against_the_references_of_their_rows() -> None:
    said = [["a red dog", "the dog"], ["no"], "two black cats", None]
    embedded = Embedded({}, {}, split="test", predictions=Having(said))
    judge = Captions("caption", references="said", prompt="a", most=5)
    found = judge(embedded, lambda texts: np.zeros((0, 0)))
    want = caption_scores(["a red dog", "two cats"], [["a red dog", "the dog"], ["two black cats"]]).corpus
    for name in ("bleu1", "bleu4", "rouge_l", "cider_d"):
        assert found[f"captions/caption/{name}"] == want[name]
    assert found["captions/caption/examples"] == 2.0
    assert found["captions/caption/length"] == 2.5
    assert found["captions/caption/different"] == 1.0
    bare = replace(embedded, predictions=Having([None] * 4))
    with pytest.raises(UserError, match="no example of the test split has a reference"):
        judge(bare, lambda texts: np.zeros((0, 0)))
    with pytest.raises(UserError, match="embeddings alone write nothing"):
        judge(replace(embedded, predictions=None), lambda texts: np.zeros((0, 0)))
