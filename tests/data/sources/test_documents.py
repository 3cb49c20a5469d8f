import pickle

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import captions
from mmjax.data.sources.contract import Source
from mmjax.data.sources.documents import DocumentRecords, Documents
from mmjax.data.sources.emoji_charts import EmojiCharts
from mmjax.data.sources.folder import Folder, FolderRecords
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.transforms.text import Lowercase
from mmjax.errors import UserError


def records(texts, between=r"\n+"):
    return DocumentRecords(FolderRecords({"id": [str(i) for i in range(len(texts))], "text": texts}), between)


def test_sentences_are_lines_or_what_lies_between_matches():
    read = records(["One.\n\nTwo. Three!\n  \n", ["One.", " ", "Two"], None])
    assert read[0]["text"].sentences == ["One.", "Two. Three!"]
    assert read[1]["text"].sentences == ["One.", "Two"]
    assert str(read[1]["text"]) == "One.\nTwo"
    assert read[2] == {"id": "2", "text": None}
    assert records(["A b. C!\nD"], r"\n+|(?<=[.!?])\s+")[0]["text"].sentences == ["A b.", "C!", "D"]
    for text in (b"\xff", {"en": "a"}, ["a", 3]):
        with pytest.raises(BadExample, match="the document is no text"):
            _ = records([text])[0]["text"].sentences


def test_another_document_is_any_but_this_one_and_holds_something():
    read = records(["a", "b", None, " ", "c", b"\xff", "d"])
    rng = np.random.default_rng(0)
    drawn = [str(pickle.loads(pickle.dumps(read[1]["text"])).other(rng)) for _ in range(300)]
    counts = {text: drawn.count(text) for text in set(drawn)}
    assert counts.keys() == {"a", "c", "d"}
    assert min(counts.values()) > 70  # a hundred each
    with pytest.raises(UserError, match="the split has one document alone"):
        records(["a"])[0]["text"].other(rng)
    with pytest.raises(BadExample, match="10 documents in a row hold no sentence"):
        records(["a", None, ""])[0]["text"].other(rng)


def test_what_cleans_strings_cleans_sentences_of_all_documents_and_those_that_tokenizers_learn_from():
    document = records(["ONE\nTWO", "THREE"])[0]["text"]
    clean = document.mapped(Lowercase())
    assert clean.sentences == ["one", "two"]
    assert clean.other(np.random.default_rng(0)).sentences == ["three"]
    assert captions({"id": "a", "text": document}, "text", (Lowercase(),)) == ["one", "two"]
    assert captions({"id": "a", "text": records([b"\xff"])[0]["text"]}, "text", ()) == []


def test_documents_are_a_sources_texts(folder_table):
    read = Documents(Folder(folder_table)).open("test")
    assert len(read) == len(Folder(folder_table).open("test"))
    assert str(read[0]["text"]) == "a grey square of level 7"
    assert read[0]["kind"] == "odd"
    with pytest.raises(UserError, match=r"Documents: the source has no text, but .*image"):
        Documents(NoText()).open("test")
    with pytest.raises(UserError, match=r"Documents\(between='\('\) is no regular expression"):
        Documents(Folder(folder_table), between="(").open("test")


class NoText(Source):
    def open(self, split, data_dir=None):
        return FolderRecords({"id": ["a"], "image": [b""]})


def test_emoji_charts_are_lists_of_names_in_the_charts_order():
    splits = {split: EmojiCharts("en").open(split) for split in ("train", "validation", "test")}
    documents = {r[i]["subgroup"]: r[i]["text"] for r in splits.values() for i in range(len(r))}
    assert len(documents) == sum(map(len, splits.values())) == 98
    assert sum(map(len, documents.values())) == 1_914
    roles = documents["person-role"]
    assert roles[roles.index("judge") :][:4] == ["judge", "man judge", "woman judge", "farmer"]
    german = EmojiCharts("de").open("train")
    assert german[0]["subgroup"] == splits["train"][0]["subgroup"]
    assert german[0]["text"] != splits["train"][0]["text"]
    with pytest.raises(SplitNotFoundError, match="EmojiCharts has no split 'dev'"):
        EmojiCharts().open("dev")
    with pytest.raises(UserError, match="language"):
        EmojiCharts("xx").open("train")
