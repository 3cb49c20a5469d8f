"""What a model writes of a split is what it writes of the same pictures by hand; and the scores of captions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax.data import Folder, SentencePiece
from mmjax.data.pipeline import prepare
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.evaluate import Captions
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.written.caption_scores import caption_scores
from mmjax.evaluate.split_writing import SplitWriter, WrittenSplit
from mmjax.evaluate.writing.beams import Beams
from mmjax.experiment.graph import build
from mmjax.runtime.mesh import Mesh
from tests.inference.writing.writing_models import SIDE, TEXTS, VOCAB, captions, made


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
        with pytest.raises(UserError, match="there is nothing to write of by 'words'"):
            writer(variables, "test", "words")
    return model, [folder / name for name in names], texts


def test_a_split_is_written_of_as_its_pictures_are_by_hand(written: Any) -> None:
    model, files, texts = written
    there = [0, 1, 3, 4]
    for width, found in texts.items():
        assert found.rows == there
        assert found.texts == model.caption([files[i] for i in there], max_new_tokens=6, beams=width)
    assert len(set(texts[None].texts)) > 1


class Having:
    """Predictions that are given."""

    def written(self, objective: str, *asked: Any) -> WrittenSplit:
        assert (objective, *asked) == ("caption", "a", 5, None)
        return WrittenSplit(["a red dog", "two cats", "a hat"], [0, 2, 3])


def test_captions_are_scored_against_the_references_of_their_rows() -> None:
    columns: dict[str, list[Any]] = {"said": [["a red dog", "the dog"], ["no"], "two black cats", None]}
    embedded = Embedded({}, {}, columns, split="test", predictions=Having())
    judge = Captions("caption", references="said", prompt="a", most=5)
    found = judge(embedded, lambda texts: np.zeros((0, 0)))
    want = caption_scores(["a red dog", "two cats"], [["a red dog", "the dog"], ["two black cats"]]).corpus
    for name in ("bleu1", "bleu4", "rouge_l", "cider_d"):
        assert found[f"captions/caption/{name}"] == want[name]
    assert found["captions/caption/examples"] == 2.0
    assert found["captions/caption/length"] == 2.5
    assert found["captions/caption/different"] == 1.0
    bare = replace(embedded, columns={"said": [None] * 4})
    with pytest.raises(UserError, match="no example of the test split has a reference"):
        judge(bare, lambda texts: np.zeros((0, 0)))
    with pytest.raises(UserError, match="embeddings alone write nothing"):
        judge(replace(embedded, predictions=None), lambda texts: np.zeros((0, 0)))
