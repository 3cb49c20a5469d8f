import csv
import itertools
import json
import pickle
import sys
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.image import Decode
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes, sound_bytes, tone, write_folder


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> str:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        table = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    return str(path)


def test_a_folder_gives_pictures_captions_sounds_and_labels(folder_table):
    records = Folder(folder_table).open("test")
    assert len(records) == 5
    record = records[1]
    assert (record["id"], record["text"], record["kind"]) == ("15.png", "a grey square of level 15", "odd")
    assert Decode()(record["image"].read(), None)[0, 0].tolist() == [15, 15, 15]
    assert len(DecodeAudio()(record["audio"].read(), None)) == 320
    assert set(records.columns) == {"id", "image", "text", "audio", "kind"}
    assert pickle.loads(pickle.dumps(records))[1] == record


def test_fields_and_splits_translate_and_root_says_where_files_are(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture_bytes((1, 1, 1)))
    rows = [{"file": "a.png", "caption": "one, two", "split": "val"}, {"file": "", "caption": "x", "split": "train"}]
    table = write_table(tmp_path / "t.tsv", rows, "\t")
    folder = Folder(
        table,
        root=str(tmp_path / "pictures"),
        fields={"image": "file", "text": "caption"},
        splits={"validation": "val"},
    )
    (record,) = [folder.open("validation")[0]]
    assert record["text"] == "one, two"
    assert record["image"] == File(str(tmp_path / "pictures" / "a.png"))
    assert folder.open("train")[0]["image"] is None
    with pytest.raises(SplitNotFoundError, match=r"'test'.*train, val"):
        folder.open("test")


def test_without_a_split_column_the_hash_of_the_id_decides(tmp_path):
    rows = [{"image": f"{i // 2}.png", "text": f"caption {i}"} for i in range(2000)]
    (tmp_path / "0.png").write_bytes(picture_bytes((1, 1, 1)))
    table = write_table(tmp_path / "t.csv", rows)
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    opened = {split: Folder(table, shares=shares).open(split) for split in shares}
    texts = {split: [records[i]["text"] for i in range(len(records))] for split, records in opened.items()}
    assert sorted(itertools.chain(*texts.values())) == sorted(row["text"] for row in rows)  # each row once
    for split, share in shares.items():
        assert len(texts[split]) == pytest.approx(2000 * share, rel=0.15)
    # The two captions of a picture are never on two sides.
    pictures = {split: {int(text.split()[1]) // 2 for text in found} for split, found in texts.items()}
    assert not pictures["train"] & (pictures["validation"] | pictures["test"])
    # A row more moves no other one.
    more = write_table(tmp_path / "more.csv", [{"image": "new.png", "text": "new"}, *rows])
    again = Folder(more, shares=shares).open("test")
    assert set(texts["test"]) <= {again[i]["text"] for i in range(len(again))}
    with pytest.raises(SplitNotFoundError, match=r"'test'.*2 rows"):
        Folder(write_table(tmp_path / "two.csv", rows[:2]), shares={"train": 1.0, "test": 0.0}).open("test")


def test_paths_of_windows_are_told_apart(tmp_path):
    table = write_table(tmp_path / "t.csv", [{"image": ".\\a.png"}])
    with pytest.raises(UserError, match="and have / where Windows has a backslash"):
        Folder(table).open("all")


def test_nan_is_missing_in_text_as_it_is_in_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("id,image,text,kind\nnan,NaN,nan, NaN \n,0.png,nan bread,nano\n")
    (tmp_path / "0.png").write_bytes(picture_bytes((1, 1, 1)))
    records = Folder(str(tmp_path / "t.csv")).open("all")
    assert records[0] == {"kind": None, "image": None, "text": None, "id": "0"}
    assert (records[1]["kind"], records[1]["text"], records[1]["id"]) == ("nano", "nan bread", "0.png")


def test_a_column_under_a_name_of_our_own_is_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", [{"text": "a", "image#": "x"}])
    with pytest.raises(UserError, match=r"t\.csv: the column 'image#' has a name that results are kept under: rename"):
        Folder(table).open("all")
    assert Folder(table, fields={"id": "image#"}).open("all")[0]["id"] == "x"


def test_the_split_all_is_the_whole_table_whatever_a_hash_or_column_says(tmp_path, caplog):
    rows = [{"text": f"caption {i}", "split": "train" if i else "test"} for i in range(40)]
    plain = write_table(tmp_path / "plain.csv", [{"text": row["text"]} for row in rows])
    split = write_table(tmp_path / "split.csv", rows)
    for table in (plain, split):
        records = Folder(table).open("all")
        assert [records[i]["text"] for i in range(len(records))] == [row["text"] for row in rows]
    assert len(Folder(split, splits={"all": "test"}).open("all")) == 1
    own = write_table(tmp_path / "own.csv", [*rows, {"text": "of all", "split": "All"}])
    assert "split" not in caplog.text
    assert [Folder(own).open("all")[0]["text"], len(Folder(own).open("all"))] == ["of all", 1]
    assert "own.csv: its column of splits puts 1 of 41 rows into 'all', and these alone are read" in caplog.text


def test_parquet_may_hold_the_bytes_themselves(tmp_path, monkeypatch):
    picture = picture_bytes((5, 6, 7))
    columns = {"id": [7, 8], "image": [picture, None], "text": [["a", "b"], ["c"]], "split": ["train", "train"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    records = Folder(str(tmp_path / "t.parquet")).open("train")
    assert records[0]["id"] == "7"
    assert records[0]["image"] == picture
    assert records[0]["text"] == ["a", "b"]
    assert records[1]["image"] is None
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"mmjax\[parquet\]"):
        Folder(str(tmp_path / "t.parquet")).open("train")


def test_errors_of_a_folder_say_what_is_there(tmp_path):
    table = str(write_folder(tmp_path, 8))
    with pytest.raises(UserError, match=r"no table .*caption\.csv; did you mean captions\.csv\?"):
        Folder(str(tmp_path / "caption.csv")).open("train")
    with pytest.raises(UserError, match=r"no such column, it has image, text.*did you mean text\?"):
        Folder(table, fields={"text": "texts"}).open("train")
    wrong = write_table(tmp_path / "wrong.csv", [{"images": "0.png", "label": "x"}])
    with pytest.raises(UserError, match=r"none of the columns .* video, it has images, label: rename images, or"):
        Folder(wrong).open("train")
    (tmp_path / "empty.csv").write_text("image,text\n")
    with pytest.raises(UserError, match="has no rows"):
        Folder(str(tmp_path / "empty.csv")).open("train")
    with pytest.raises(UserError, match=r"may end in \.csv"):
        Folder(str(tmp_path / "0.png")).open("train")


def test_columns_of_splits_and_ids_may_have_names_of_their_own(tmp_path):
    rows = [{"text": f"caption {i}", "set": "Test" if i % 4 else "Train", "key": f"k{i}"} for i in range(12)]
    table = write_table(tmp_path / "t.csv", rows)
    found = {s: Folder(table, fields={"split": "set", "id": "key"}).open(s) for s in ("train", "test")}
    assert {s: len(records) for s, records in found.items()} == {"train": 3, "test": 9}
    assert found["train"][1]["id"] == "k4"
    assert found["test"].columns == ("text", "id")  # what is told by fields is no label
    with pytest.raises(UserError, match=r"'split': 'sett'.*no such column, it has text, set, key; did you mean set\?"):
        Folder(table, fields={"split": "sett"}).open("train")
    with pytest.raises(UserError, match=r"columns image, text, audio, video, id, split are called; there is no 'txt'"):
        Folder(table, fields={"txt": "text"}).open("train")


def test_names_of_columns_are_known_in_any_case_but_for_labels_of_that_name(tmp_path):
    rows = [{"Text": "a cat", "Split": "train", "ID": "3"}, {"Text": "a dog", "Split": "test", "ID": "4"}]
    records = Folder(write_table(tmp_path / "t.csv", rows)).open("train")
    assert [records[i] for i in range(len(records))] == [{"ID": "3", "text": "a cat", "id": "a cat"}]
    both = write_table(tmp_path / "both.csv", [{"text": "a cat", "Text": "a label", "split": "train"}])
    assert Folder(both).open("train")[0] == {"Text": "a label", "text": "a cat", "id": "a cat"}


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_cell_without_content_is_missing_in_every_column_of_every_kind_of_table(tmp_path, kind):
    columns = {
        "id": ["one", ""],
        "image": ["a.png", " "],
        "audio": ["a.wav", ""],
        "text": ["a cat", "  "],
        "label": ["cat", ""],
        "split": ["train", "train"],
    }
    for name in ("a.png", "a.wav"):
        (tmp_path / name).touch()
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        columns["number"] = [1.5, float("nan")]  # type: ignore[list-item]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        write_table(path, rows, "\t" if kind == "tsv" else ",")
    records = Folder(str(path)).open("train")
    assert {name: records[1][name] for name in ("image", "audio", "text", "label")} == dict.fromkeys(
        ("image", "audio", "text", "label")
    )
    assert records[1].get("number") is None
    assert (records[0]["label"], records[0]["id"], records[1]["id"]) == ("cat", "one", "1")


def test_rows_that_share_a_picture_or_sound_share_the_split_whatever_their_ids(tmp_path):
    shares = {"train": 0.5, "test": 0.5}
    (tmp_path / "0.png").write_bytes(picture_bytes((1, 1, 1)))
    (tmp_path / "s0.wav").touch()
    rows = [
        {"id": f"row {i}", "image": f"{'./' * (i % 2)}{i // 2}.png", "audio": f"s{i // 6}.wav", "text": "x"}
        for i in range(240)
    ]
    table = write_table(tmp_path / "t.csv", rows)
    sides = {s: Folder(table, shares=shares).open(s) for s in shares}
    numbers = {s: {int(records[i]["id"].split()[1]) for i in range(len(records))} for s, records in sides.items()}
    assert len(numbers["train"] | numbers["test"]) == 240
    for share in (2, 6):
        assert not {i // share for i in numbers["train"]} & {i // share for i in numbers["test"]}
    # By their bytes too, where the table holds them.
    content = {"id": [f"row {i}" for i in range(100)], "image": [picture_bytes((i // 2, 0, 0)) for i in range(100)]}
    pyarrow.parquet.write_table(pyarrow.table(content), tmp_path / "t.parquet")
    sides = {s: Folder(str(tmp_path / "t.parquet"), shares=shares).open(s) for s in shares}
    train, test = ({int(r[i]["id"].split()[1]) // 2 for i in range(len(r))} for r in sides.values())
    assert not train & test


def test_a_row_that_shares_nothing_keeps_the_split_that_its_id_gives(tmp_path):
    (tmp_path / "0.png").touch()
    rows = [{"image": f"{i}.png", "text": "x"} for i in range(60)]
    plain = Folder(write_table(tmp_path / "t.csv", rows))
    found = {s: [plain.open(s)[i]["id"] for i in range(len(plain.open(s)))] for s in plain.shares}
    assert found["validation"] == ["21.png", "50.png", "51.png"]
    assert found["test"][:3] == ["5.png", "18.png", "26.png"]


def test_a_table_of_hugging_faces_is_read(tmp_path):
    (tmp_path / "b.png").write_bytes(picture_bytes((9, 9, 9)))
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pictures = pyarrow.array(
        [{"bytes": picture_bytes((5, 5, 5)), "path": "a.png"}, {"bytes": None, "path": "b.png"}], struct
    )
    sounds = pyarrow.array([{"bytes": sound_bytes(tone(300)), "path": None}, {"bytes": None, "path": None}], struct)
    table = pyarrow.table({"image": pictures, "audio": sounds, "text": [["a", "b"], ["c"]], "split": ["train"] * 2})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    records = Folder(str(tmp_path / "t.parquet")).open("train")
    assert Decode()(records[0]["image"], None)[0, 0].tolist() == [5, 5, 5]
    assert Decode()(records[1]["image"].read(), None)[0, 0].tolist() == [9, 9, 9]
    assert len(DecodeAudio()(records[0]["audio"], None)) == 320
    assert records[1]["audio"] is None
    assert (records[0]["id"], records[1]["id"]) == ("0", "b.png")  # a name beside bytes need not be one of its own


def test_classes_of_hugging_faces_have_their_names(tmp_path):
    features = {
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
        "text": {"_type": "Value", "dtype": "string"},
    }
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, -1, 0], "number": [1, -1, 0]})
    told = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(told, tmp_path / "t.parquet")
    records = pickle.loads(pickle.dumps(Folder(str(tmp_path / "t.parquet")).open("all")))
    assert records.class_names == {"label": ("cat", "dog")}
    assert [records[i]["label"] for i in range(3)] == [1, None, 0]
    assert [records[i]["number"] for i in range(3)] == [1, -1, 0]  # a number, of which nothing says that it is a class
    captions = Folder(str(tmp_path / "t.parquet"), fields={"text": "label"}).open("all")
    assert [captions[i]["text"] for i in range(3)] == ["dog", None, "cat"]
    for broken in ("{", "[" * 100_000, "[]", '{"info": {"features": {"label": 3}}}'):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": broken}), tmp_path / "b.parquet")
        assert Folder(str(tmp_path / "b.parquet")).open("all").class_names == {}


def test_home_is_where_it_is_and_addresses_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"a")
    write_table(
        tmp_path / "t.csv", [{"image": "a.png", "split": "train"}, {"image": "~/pictures/a.png", "split": "train"}]
    )
    records = Folder("~/t.csv", root="~/pictures").open("train")
    assert [records[i]["image"].read() for i in range(2)] == [b"a", b"a"]
    with pytest.raises(UserError, match=r"Folder\('gs://bucket/t\.csv'\): a URL, and nothing .* fetch the table"):
        Folder("gs://bucket/t.csv").open("train")
    table = write_table(tmp_path / "u.csv", [{"image": "https://a.org/1.png", "split": "train"}])
    with pytest.raises(UserError, match=r"u\.csv, line 2, column 'image': https://a\.org/1\.png is a URL"):
        Folder(table).open("train")


def test_a_file_is_found_whatever_normal_form_its_name_has(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "crème.png")).write_bytes(b"whole")
    table = write_table(tmp_path / "t.csv", [{"image": unicodedata.normalize("NFC", "crème.png"), "split": "train"}])
    assert Folder(table).open("train")[0]["image"].read() == b"whole"


def test_a_missing_file_is_a_bad_example_but_all_missing_is_an_error(tmp_path):
    table = str(write_folder(tmp_path, 8))
    (tmp_path / "3.png").unlink()
    records = Folder(table).open("train")
    with pytest.raises(BadExample, match=r"3\.png can't be read"):
        records[3]["image"].read()
    with pytest.raises(UserError, match=r"of the 8 files in the column image.*elsewhere/0\.png"):
        Folder(table, root="elsewhere").open("train")
