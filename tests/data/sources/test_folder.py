"""Columns of a table that are files of modalities that mmjax doesn't know."""

import numpy as np
import pytest

from mmjax.data.paths import File
from mmjax.data.pipeline import Mixture, prepare
from mmjax.data.sources.documents import Documents
from mmjax.data.sources.every_caption import EveryCaption
from mmjax.data.sources.folder import Folder, table_like
from mmjax.errors import UserError
from tests.depth import ReadDepth


@pytest.fixture
def table(tmp_path) -> str:
    for row in range(3):
        (tmp_path / f"{row}.npy").write_bytes(b"depth")
    lines = ["depth,sketch,kind,split", *(f"{row}.npy,{row}.npy,k,train" for row in range(3))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "t.csv")


def test_a_column_of_files_is_read_as_the_usual_ones_are(table):
    source = Folder(table, files=("depth", "sketch"))
    records = source.open("train")
    assert records.media == ("depth", "sketch")
    assert isinstance(records[1]["depth"], File)
    assert records[1]["depth"].read() == b"depth"
    assert records[1]["id"].endswith("1.npy")
    assert records[1]["kind"] == "k"
    assert records.fingerprint().keys() == {"rows", "id", "depth", "sketch"}
    assert source.modalities() == ["depth", "sketch"]
    assert Folder(table, files=("depth",)).open("train")[1]["sketch"] == "1.npy"  # a label
    renamed = Folder(table, files=("far",), fields={"far": "depth"}).open("train")
    assert isinstance(renamed[0]["far"], File)


def test_rows_that_share_a_file_share_the_split(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.npy").touch()
    (tmp_path / "t.csv").write_text("depth\n" + "a.npy\nb.npy\n" * 40)
    source = Folder(str(tmp_path / "t.csv"), files=("depth",), shares={"train": 0.5, "test": 0.5})
    for split in ("train", "test"):
        try:
            assert len(source.open(split)) in (40, 80)
        except ValueError:  # both of them are in the other
            continue


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"files": ("dept",)},
            r"files=\('dept',\)\): the table has no such column.*; did you mean '?depth'?\?",
        ),
        ({"files": ("text",)}, r"files=\('text',\)\): that column holds no files"),
        ({"fields": {"depht": "depth"}}, r"there is no 'depht' among them"),
        ({"files": ("depth",), "fields": {"depth": "far"}}, r"fields=.*the table has no such column"),
        ({}, r"has none of the columns image, text, audio and video"),
    ],
)
def test_columns_that_are_not_there_are_named(table, fields, message):
    with pytest.raises(UserError, match=message):
        Folder(table, **fields).open("train")


def test_results_keep_their_names(tmp_path):
    (tmp_path / "0.npy").touch()
    (tmp_path / "t.csv").write_text("depth,depth#,split\n0.npy,x,train\n")
    with pytest.raises(UserError, match=r"the column 'depth#' has a name that results are kept under"):
        Folder(str(tmp_path / "t.csv"), files=("depth",)).open("train")


def test_another_table_has_the_same_columns_of_files(table, tmp_path):
    (tmp_path / "other.csv").write_text("depth,kind\n0.npy,k\n")
    mine = [EveryCaption(Documents(Folder(table, files=("depth", "sketch"))))]
    assert table_like(str(tmp_path / "other.csv"), mine) == Folder(str(tmp_path / "other.csv"), files=("depth",))
    assert table_like(str(tmp_path / "other.csv"), ()) == Folder(str(tmp_path / "other.csv"))


def test_a_table_like_the_runs_own_has_its_names_of_columns_and_of_splits(tmp_path):
    own = Folder(
        "runs.csv",
        root="elsewhere",
        fields={"image": "photo", "text": "words", "far": "depth", "split": "part", "id": "key"},
        splits={"validation": "val", "test": "held"},
        files=("far", "sketch"),
    )
    (tmp_path / "a.csv").write_text("photo,words,depth,part\na.png,a cat,a.npy,val\n")
    found = table_like(str(tmp_path / "a.csv"), (Documents(own),))
    fields = {"image": "photo", "text": "words", "far": "depth", "split": "part"}
    assert found == Folder(str(tmp_path / "a.csv"), fields=fields, splits={"validation": "val"}, files=("far",))
    (tmp_path / "a.png").touch()
    (tmp_path / "a.npy").touch()
    record = found.open("validation")[0]
    assert (record["text"], type(record["far"]), type(record["image"])) == ("a cat", File, File)
    (tmp_path / "b.csv").write_text("image,caption,sketch\nb.png,a dog,s.npy\n")  # of the usual names
    assert table_like(str(tmp_path / "b.csv"), (own,)) == Folder(str(tmp_path / "b.csv"), files=("sketch",))
    assert table_like(str(tmp_path / "b.csv"), (), ("sketch",)).files == ("sketch",)  # by what a model reads


def test_a_chain_reads_numbers_of_a_column_and_says_how_files_are_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    far = [[float(row + i) for i in range(64)] for row in range(2)]
    columns = {"text": ["a", "b"], "depth": far, "split": ["train"] * 2}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    source = {"own": Folder(str(tmp_path / "t.parquet"))}
    chains = prepare(Mixture({"own": 1.0}, {"depth": (ReadDepth(8),)}, source)).chains
    row = chains.row(source["own"].open("train")[1], lambda modality: None)
    np.testing.assert_allclose(row["depth"].ravel(), np.arange(1, 65) / 10, rtol=1e-6)
    lacking = prepare(Mixture({"own": 1.0}, {"heat": (ReadDepth(8),)}, source))
    with pytest.raises(ValueError, match=r"no source has such a modality.*say Folder\(.*, files=\('heat',\)\)"):
        lacking.open("train")
