"""Datasets of Hugging Face's: their own rows, undecoded, from a folder and from the cache."""

import pickle
import shutil

import numpy as np
import pytest

datasets = pytest.importorskip("datasets")

from mmjax.data import Decode, HuggingFace, Label, Mixture, Resize  # noqa: E402
from mmjax.data.paths import File  # noqa: E402
from mmjax.data.pipeline import batches  # noqa: E402
from mmjax.data.sources.splits import SplitNotFoundError  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from tests.data.tar_files import picture, sound  # noqa: E402


def rows(records) -> list[dict]:
    return [records[index] for index in range(len(records))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures as bytes and as a file, sounds, several captions, classes; of the fourth row nearly nothing."""
    place = tmp_path_factory.mktemp("hf")
    (place / "own.jpg").write_bytes(picture(9))
    columns = {
        "image": [{"bytes": picture(n), "path": None} for n in range(4)]
        + [{"bytes": None, "path": str(place / "own.jpg")}],
        "audio": [{"bytes": sound(0), "path": None}, None, None, None, None],
        "captions": [["a", " "], ["b"], [], None, ["c", "d"]],
        "answers": [[{"text": f"yes {n}"}] for n in range(5)],
        "kind": [0, 1, -1, None, 1],
        "score": [0.5, float("nan"), 2.0, None, 1.0],
        "key": ["k0", "k1", "k2", "k3", None],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "captions": datasets.List(datasets.Value("string")),
            "answers": datasets.List({"text": datasets.Value("string")}),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "score": datasets.Value("float32"),
            "key": datasets.Value("string"),
        }
    )
    train = datasets.Dataset.from_dict(columns, features=features)
    train = train.cast_column("audio", datasets.Audio())  # made so, it needs no decoder
    datasets.DatasetDict({"train": train, "test": train.select([1, 2])}).save_to_disk(str(place / "saved"))
    return place


FIELDS = {"text": "captions", "id": "key"}


def test_rows_are_theirs_as_they_are_stored(folder):
    records = HuggingFace(str(folder / "saved"), fields=FIELDS).open("train")
    found = rows(records)
    assert [one["id"] for one in found] == ["k0", "k1", "k2", "k3", "train/4"]
    assert [one["image"] for one in found] == [picture(n) for n in (*range(4), 9)]
    assert [one["audio"] for one in found] == [sound(0), None, None, None, None]
    assert [one["text"] for one in found] == [["a"], ["b"], None, None, ["c", "d"]]
    assert [one["kind"] for one in found] == [0, 1, None, None, 1]
    assert [one["score"] for one in found] == [0.5, None, 2.0, None, 1.0]
    assert records.class_names == {"kind": ("cat", "dog")}
    assert (records.media, records.named) == (("image", "audio"), True)
    assert rows(pickle.loads(pickle.dumps(records))) == found
    nested = HuggingFace(str(folder / "saved"), fields={"text": "answers/text"}).open("train")
    assert [one["text"] for one in rows(nested)] == [[f"yes {n}"] for n in range(5)]
    assert nested[0]["id"] == "train/0"


def test_a_picture_may_be_a_file(tmp_path):
    (tmp_path / "own.jpg").write_bytes(picture(9))
    columns = {
        "image": [{"bytes": None, "path": str(tmp_path / "own.jpg")}, {"bytes": picture(1), "path": "a.jpg"}, None]
    }
    features = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    found = [one["image"] for one in rows(HuggingFace(str(tmp_path / "saved")).open("train"))]
    assert found == [File(str(tmp_path / "own.jpg")), picture(1), None]


def test_splits_are_theirs_or_parts_of_them(folder):
    source = HuggingFace(str(folder / "saved"), fields=FIELDS, splits={"validation": "train[60%:]", "few": "train[:1]"})
    found = {split: [one["id"] for one in rows(source.open(split))] for split in ("validation", "few", "test", "all")}
    assert found == {
        "validation": ["k3", "validation/1"],
        "few": ["k0"],
        "test": ["k1", "k2"],
        "all": ["k0", "k1", "k2", "k3", "all/4", "k1", "k2"],
    }
    with pytest.raises(SplitNotFoundError, match="has no split 'dev', it has train, test"):
        source.open("dev")
    with pytest.raises(UserError, match=r"splits=\{'odd': 'train\[x\]'\}"):
        HuggingFace(str(folder / "saved"), splits={"odd": "train[x]"}).open("odd")


def test_what_is_in_the_cache_goes_by_its_name(folder, tmp_path, monkeypatch):
    saved = datasets.load_from_disk(str(folder / "saved"))
    saved["train"].to_parquet(str(tmp_path / "train.parquet"))
    cache = tmp_path / "cache"
    datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=str(cache))
    (config,) = (cache / "parquet").iterdir()
    shutil.copytree(config, cache / "someone___pictures" / "default")
    for file in (cache / "someone___pictures").rglob("parquet-*"):  # as one of the hub lies there
        file.rename(file.with_name(file.name.replace("parquet", "pictures")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    records = HuggingFace("someone/pictures", fields=FIELDS).open("train")
    assert [one["id"] for one in rows(records)] == ["k0", "k1", "k2", "k3", "train/4"]
    assert records[1]["image"] == picture(1)
    with pytest.raises(UserError, match=r"HuggingFace\('someone/sounds'\): there is no folder.*load_dataset"):
        HuggingFace("someone/sounds").open("train")


def test_what_does_not_fit_is_told(folder, tmp_path):
    with pytest.raises(UserError, match=r"no such column, there are image, .*; did you mean captions"):
        HuggingFace(str(folder / "saved"), fields={"text": "caption"}).open("train")
    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(str(tmp_path / "odd"))
    with pytest.raises(UserError, match="no column named image, text, audio or video, but x"):
        HuggingFace(str(tmp_path / "odd")).open("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no folder of save_to_disk there"):
        HuggingFace(str(tmp_path / "empty")).open("train")


def test_a_run_knows_whether_its_files_are_the_same(folder, tmp_path):
    shutil.copytree(folder / "saved", tmp_path / "copy")
    first = HuggingFace(str(folder / "saved"), fields=FIELDS)
    assert first.open("train").fingerprint() == HuggingFace(str(tmp_path / "copy")).open("train").fingerprint()
    assert first.open("train").fingerprint() != first.open("test").fingerprint()


def test_batches_go_on_where_they_stopped(folder):
    chains = {"image": (Decode(), Resize(8)), "kind": (Label(("cat", "dog")),)}
    mixture = Mixture({"own": 1.0}, chains, {"own": HuggingFace(str(folder / "saved"), fields=FIELDS)})
    whole = batches(mixture, batch_size=4, seed=1)
    wanted = [next(whole) for _ in range(4)]
    again = next(batches(mixture, batch_size=4, seed=1, step=3))
    for name, array in wanted[3].items():
        np.testing.assert_array_equal(again[name], array)
