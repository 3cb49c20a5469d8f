"""Corpora as rows of one stream: against the stream joined by hand, on hosts and after resumption, and their bytes."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.data.pipeline import Mixture, batches, prepare
from mmjax.data.sources.documents import Documents
from mmjax.data.sources.folder import FolderRecords, Source
from mmjax.data.sources.text_files import TextFiles
from mmjax.data.token_rows import TokenRows
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.token_row import ReadRow
from mmjax.errors import UserError
from tests.data.vocabularies import TEXTS, write_gpt2

pytest.importorskip("tokenizers")
KEPT = [text for text in TEXTS if text.strip()]


class Texts(Source):
    """A source without digests of its own."""

    def __init__(self, texts: list[Any]):
        self.texts = texts

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        del split, data_dir

        class Own(FolderRecords):
            def fingerprint(self, columns: Any = None) -> dict[str, Any]:
                return {"rows": len(self)}

        return Own({"id": [str(i) for i in range(len(self.texts))], "text": self.texts})


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Subwords:
    return Subwords(500, str(write_gpt2(tmp_path_factory.mktemp("gpt2"))))


@pytest.mark.parametrize("length", [2, 7, 64, 5000])
def test_rows_are_the_stream_of_all_documents(spec: Subwords, tmp_path: Path, length: int) -> None:
    tokenizer = spec.load(None, tmp_path)
    records = TokenRows(Texts([*KEPT, None]), spec, length).open("train", str(tmp_path))
    stream = [tokenizer.eos]
    for text in KEPT:
        stream += [*tokenizer.encode(text), tokenizer.eos]
    chain = ReadRow(tokenizer, length)
    predicted, size = [stream[0]], 0
    for number in range(len(records)):
        (ids, mask), labels = chain(records[number]["text"], None)
        assert ids[0] == predicted[-1]  # a row begins with the last token of the row before
        assert mask.all() or number == len(records) - 1
        predicted += ids[mask][1:].tolist()
        size += int(labels["bytes"])
    assert predicted == stream
    assert size == sum(len(text.encode()) for text in KEPT)
    with pytest.raises(IndexError):
        records[len(records)]


def test_bytes_of_a_row_are_those_of_its_text(spec: Subwords, tmp_path: Path) -> None:
    tokenizer = spec.load(None, tmp_path)
    texts = ["a photo of the cat, hello world", "snake_case wide"]  # of one byte a letter
    records = TokenRows(Texts(texts), spec, 5).open("train", str(tmp_path))
    for number in range(len(records)):
        row = records[number]["text"]
        assert row.size == len(tokenizer.decode(row.ids[1:].tolist()))


def test_batches_are_the_same_on_hosts_and_after_resumption(spec: Subwords, tmp_path: Path) -> None:
    for number, text in enumerate(KEPT):
        (tmp_path / f"{number:02}.txt").write_text(text, "utf-8", newline="")
    source = TokenRows(TextFiles(str(tmp_path), shares={"train": 1.0}), spec, 9)
    mixture = Mixture({"own": 1.0}, {"text": (ReadRow(spec, 9),)}, {"own": source})
    made = prepare(mixture, data_dir=str(tmp_path / "data"))
    rows = len(made.open("train")["own"])

    def read(count: int, step: int = 0, **fields: Any) -> list[dict[str, np.ndarray]]:
        stream = batches(made, batch_size=4, seed=3, step=step, **fields)
        found = [next(stream) for _ in range(count)]
        stream.close()  # type: ignore[attr-defined]
        return found

    whole = read(6)
    hosts = [read(6, host=(host, 2)) for host in range(2)]
    for step, batch in enumerate(whole):
        for name in ("text", "text_bytes", "text_mask"):
            np.testing.assert_array_equal(batch[name], np.concatenate([host[step][name] for host in hosts]))
    np.testing.assert_array_equal(read(1, step=4)[0]["text"], whole[4]["text"])
    epoch = np.concatenate([batch["id"] for batch in read(-(-rows // 4))])[:rows]
    assert len({tuple(row) for row in epoch.tolist()}) == rows  # each row once an epoch


def test_texts_are_cut_once_and_again_where_they_change(spec: Subwords, tmp_path: Path) -> None:
    def files(texts: list[Any], **fields: Any) -> set[str]:
        source = dataclasses.replace(TokenRows(Texts(texts), spec, 4), **fields)
        records = source.open("train", str(tmp_path))
        assert len(pickle.dumps(records)) < 2000  # it travels without its tokens
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(records))[0]["text"].ids, records[0]["text"].ids)
        return {file.name for file in (tmp_path / "tokens").iterdir()}

    once = files(["a cat", "a dog"])
    assert len(once) == 2
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "tokens").iterdir()}
    assert files(["a cat", "a dog"], length=3) == once
    assert times == {file: file.stat().st_mtime_ns for file in times}
    assert len(files(["a cat", "a cow"])) == 4
    assert len(files([None, "a cat", "a dog"])) == 6


def test_documents_are_read_whole(spec: Subwords, tmp_path: Path) -> None:
    plain = TokenRows(Texts(["a cat\nit is"]), spec, 50).open("train", str(tmp_path))
    cut = TokenRows(Documents(Texts([["a cat", "it is"]])), spec, 50).open("train", str(tmp_path))
    np.testing.assert_array_equal(plain[0]["text"].ids, cut[0]["text"].ids)


def test_what_can_not_be_cut_is_refused(spec: Subwords, tmp_path: Path) -> None:
    given: list[tuple[TokenRows, str]] = [
        (TokenRows(Texts(["a", 3]), spec, 4), "the document '1' is no text"),
        (TokenRows(Texts(["\ud800"]), spec, 4), "the document '0' is no text"),
        (TokenRows(Texts(["a"]), spec, 1), r"TokenRows\(length=1\)"),
        (TokenRows(Texts(["a"]), spec, 4, "speech"), "has no speech"),
        (TokenRows(Texts(["a"]), SentencePiece(40), 4), "train it first"),
        (TokenRows(Texts(["a"]), "gpt2", 4), r"tokenizer='gpt2'\) is no tokenizer"),
    ]
    for source, message in given:
        with pytest.raises(UserError, match=message):
            source.open("train", str(tmp_path))
    tokenizer = spec.load(None, tmp_path)
    tokenizer.eos = None
    with pytest.raises(UserError, match="no end token, which stands between documents"):
        TokenRows(Texts(["a"]), tokenizer, 4).open("train", str(tmp_path / "other"))
    assert not list((tmp_path / "tokens").glob("*"))  # nothing half-written is left
