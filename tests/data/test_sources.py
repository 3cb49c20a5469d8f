import csv
import itertools
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mmjax.data import sources
from mmjax.data.sources import File, Folder, SplitNotFoundError, Tfds
from mmjax.data.transforms import BadExample, Decode
from mmjax.data.waveforms import DecodeAudio
from tests.data.conftest import picture_bytes, write_folder


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


def test_the_split_all_is_the_whole_table_whatever_a_hash_or_column_says(tmp_path):
    rows = [{"text": f"caption {i}", "split": "train" if i else "test"} for i in range(40)]
    plain = write_table(tmp_path / "plain.csv", [{"text": row["text"]} for row in rows])
    split = write_table(tmp_path / "split.csv", rows)
    for table in (plain, split):
        records = Folder(table).open("all")
        assert [records[i]["text"] for i in range(len(records))] == [row["text"] for row in rows]
    assert len(Folder(split, splits={"all": "test"}).open("all")) == 1
    own = write_table(tmp_path / "own.csv", [*rows, {"text": "of all", "split": "all"}])
    assert [Folder(own).open("all")[0]["text"], len(Folder(own).open("all"))] == ["of all", 1]


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
    with pytest.raises(ImportError, match=r"mmjax\[parquet\]"):
        Folder(str(tmp_path / "t.parquet")).open("train")


def test_errors_of_a_folder_say_what_is_there(tmp_path):
    table = str(write_folder(tmp_path, 8))
    with pytest.raises(FileNotFoundError, match=r"no table .*caption\.csv; did you mean 'captions\.csv'"):
        Folder(str(tmp_path / "caption.csv")).open("train")
    with pytest.raises(ValueError, match=r"no such column, it has image, text.*did you mean 'text'"):
        Folder(table, fields={"text": "texts"}).open("train")
    wrong = write_table(tmp_path / "wrong.csv", [{"images": "0.png", "label": "x"}])
    with pytest.raises(ValueError, match=r"none of the columns image, text and audio, it has images, label.*'images'"):
        Folder(wrong).open("train")
    (tmp_path / "empty.csv").write_text("image,text\n")
    with pytest.raises(ValueError, match="has no rows"):
        Folder(str(tmp_path / "empty.csv")).open("train")
    with pytest.raises(ValueError, match=r"may end in \.csv"):
        Folder(str(tmp_path / "0.png")).open("train")


def test_a_missing_file_is_a_bad_example_but_all_missing_is_an_error(tmp_path):
    table = str(write_folder(tmp_path, 8))
    (tmp_path / "3.png").unlink()
    records = Folder(table).open("train")
    with pytest.raises(BadExample, match=r"3\.png can't be read"):
        records[3]["image"].read()
    with pytest.raises(FileNotFoundError, match=r"of the 8 files in the column image.*elsewhere/0\.png"):
        Folder(table, root="elsewhere").open("train")


def test_tfds_gives_plain_values_by_modality(tfds_dir):
    records = Tfds("toy", data_dir=tfds_dir).open("train")
    assert len(records) == 24
    by_id = {record["id"]: record for record in (records[i] for i in range(24))}
    record = by_id["toy-7"]
    assert Decode()(record["image"], None)[0, 0].tolist() == [7, 0, 0]
    assert (record["text"], record["group"], record["number"]) == ("toy number 7", "low", 7)
    assert record["names"] == {"de": "Spielzeug 7", "en": "toy number 7"}
    assert len(record["audio"]) == 2  # `speech`, without being asked
    assert DecodeAudio()(record["audio"][1], None).dtype == np.int16
    again = pickle.loads(pickle.dumps(records))
    assert again[5] == records[5]
    assert records.columns == again.columns


def test_tfds_fields_may_be_nested_and_splits_translated(tfds_dir):
    source = Tfds(
        "toy",
        data_dir=tfds_dir,
        fields={"text": "names", "audio": "speech/audio", "voice": "speech/voice"},
        splits={"validation": "train[75%:]"},
    )
    records = source.open("validation")
    assert len(records) == 6
    assert records[0]["text"]["de"].startswith("Spielzeug")
    assert records[0]["voice"] == ["v0", "v1"]
    assert isinstance(records[0]["audio"][0], bytes)


def test_errors_of_tfds_say_what_is_there(tfds_dir):
    with pytest.raises(SplitNotFoundError, match="no split 'validation', it has "):
        Tfds("toy", data_dir=tfds_dir).open("validation")
    with pytest.raises(ValueError, match=r"no 'texts' among group, id,.*did you mean 'text'"):
        Tfds("toy", fields={"text": "texts"}, data_dir=tfds_dir).open("train")
    with pytest.raises(ValueError, match=r"no 'audoi' among audio, voice.*did you mean 'audio'"):
        Tfds("toy", fields={"audio": "speech/audoi"}, data_dir=tfds_dir).open("train")


def test_a_dataset_that_is_not_built_is_prepared_first(tfds_dir, tmp_path, monkeypatch):
    built = []

    def prepare(name: str, data_dir: str | None = None) -> Path:
        built.append(name)
        (tmp_path / "toy").symlink_to(Path(tfds_dir) / "toy")
        return tmp_path / "toy" / "1.0.0"

    monkeypatch.setattr(sources, "prepare", prepare)
    assert len(Tfds("toy").open("test", data_dir=str(tmp_path))) == 6
    assert len(Tfds("toy").open("test", data_dir=str(tmp_path))) == 6
    assert built == ["toy"]


def test_of_our_datasets_the_builders_version_is_read_whatever_older_one_is_there(tfds_dir, tmp_path, monkeypatch):
    asked = []

    def prepare(name: str, data_dir: str | None = None) -> Path:
        asked.append((name, data_dir))
        return Path(tfds_dir) / "toy" / "1.0.0"

    older = tmp_path / "toy" / "0.9.0"
    shutil.copytree(Path(tfds_dir) / "toy" / "1.0.0", older)
    info = older / "dataset_info.json"
    info.write_text(info.read_text().replace("1.0.0", "0.9.0"))
    monkeypatch.setattr(sources, "prepare", prepare)
    monkeypatch.setattr(sources, "is_ours", lambda name: True)
    assert len(Tfds("toy").open("test", data_dir=str(tmp_path))) == 6
    assert asked == [("toy", str(tmp_path))]
    assert len(Tfds("toy:0.9.0").open("test", data_dir=str(tmp_path))) == 6  # asked for by its version
    assert len(asked) == 1
