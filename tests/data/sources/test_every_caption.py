import pickle

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mmjax.data.sources.contents import Again
from mmjax.data.sources.every_caption import EveryCaption, expanded
from mmjax.data.sources.folder import Folder
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.retrieval import Retrieval
from tests.data.conftest import picture_bytes
from tests.evaluate.metrics.test_ranks import unit


def table(folder, captions) -> str:
    pictures = [picture_bytes((i, i, i)) for i in range(len(captions))]
    ids = [f"p{i}" for i in range(len(captions))]
    columns = {"id": ids, "image": pictures, "text": captions, "split": ["test"] * len(captions)}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "t.parquet")
    return str(folder / "t.parquet")


def test_each_caption_is_a_row_and_each_picture_is_there_once(tmp_path):
    source = EveryCaption(Folder(table(tmp_path, [["a", "b", ""], None, ["c", "d", "e", "f"]])), most=3)
    records = pickle.loads(pickle.dumps(source.open("test")))
    assert len(records) == 9
    rows = [records[i] for i in range(9)]
    assert [row["text"] for row in rows] == ["a", "b", None, None, None, None, "c", "d", "e"]
    assert [row["of"] for row in rows] == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert [row["image"] is not None for row in rows] == [True, False, False] * 3
    assert len({row["id"] for row in rows}) == 9
    assert set(records.columns) == set(rows[0])
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"], "split": ["test"]}), tmp_path / "n.parquet")
    with pytest.raises(UserError, match=r"the source has no text, but (id, image|image, id)"):
        EveryCaption(Folder(str(tmp_path / "n.parquet"))).open("test")


def test_retrieval_ranks_pictures_against_all_captions_and_captions_against_all_pictures():
    rng = np.random.default_rng(0)
    pictures, captions = unit(rng, 8, 5), unit(rng, 24, 5)
    image = np.zeros((24, 5), np.float32)
    image[::3] = pictures
    valid = {"image": np.arange(24) % 3 == 0, "text": np.arange(24) % 7 != 6}
    split = Embedded({"image": image, "text": captions}, valid, {"of": [f"p{i // 3}" for i in range(24)]})
    found = Retrieval(same="of", at=(1, 3))(split, lambda strings: captions)
    there, back = [], []
    for p in range(8):
        order = sorted(np.flatnonzero(valid["text"]), key=lambda c: -float(pictures[p] @ captions[c]))
        there.append(min(place for place, c in enumerate(order, start=1) if c // 3 == p))
    for c in np.flatnonzero(valid["text"]):
        order = sorted(range(8), key=lambda p: -float(pictures[p] @ captions[c]))
        back.append(order.index(int(c) // 3) + 1)
    assert found["retrieval/image->text/R@3"] == np.mean(np.array(there) <= 3)
    assert found["retrieval/text->image/R@1"] == np.mean(np.array(back) == 1)
    assert found["retrieval/text->image/median_rank"] == np.median(back)


def test_several_columns_of_captions_are_counted_by_the_longest(tmp_path):
    columns = {
        "id": ["p", "q"],
        "sketch": [b"x", b"y"],
        "text": [["a", "b"], ["c"]],
        "summary": [["k", "l", "m"], ["n"]],
        "split": ["test"] * 2,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    records = expanded(Folder(str(tmp_path / "t.parquet"), files=("sketch",)).open("test"), ("text", "summary"))
    rows = [records[i] for i in range(len(records))]
    assert [row["text"] for row in rows] == ["a", "b", None, "c"]
    assert [row["summary"] for row in rows] == ["k", "l", "m", "n"]
    assert [isinstance(row["sketch"], Again) for row in rows] == [False, True, True, False]


def test_captions_of_another_name_are_rows_and_other_pictures_go_with_the_first(tmp_path):
    columns = {"id": ["p"], "sketch": [b"x"], "summary": [["k", "l"]], "text": ["a"], "split": ["test"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    source = EveryCaption(Folder(str(tmp_path / "t.parquet"), files=("sketch",)), most=2, modality="summary")
    assert [(row["summary"], row["sketch"]) for row in map(source.open("test").__getitem__, range(2))] == [
        ("k", b"x"),
        ("l", None),
    ]
