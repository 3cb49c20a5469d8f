import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.sources import tfds_records
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.image import Decode
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes


@pytest.fixture(scope="module")
def gaps_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data_dir with the dataset `gaps`: of three examples the second one lacks whatever can be lacking."""
    import tensorflow_datasets as tfds
    from etils import epath

    class Gaps(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = epath.Path(__file__).parent
        url_infos = {}

        def _info(self) -> tfds.core.DatasetInfo:
            text, kinds = tfds.features.Text, tfds.features.ClassLabel(names=["cat", "dog"])
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "key": text(),
                        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                        "text": text(),
                        "captions": tfds.features.Sequence(text()),
                        "label": kinds,
                        "labels": tfds.features.Sequence(kinds),
                        "place": text(),
                        "size": np.float32,
                        "number": np.int64,
                        "speech": tfds.features.Sequence({"audio": text()}),
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):  # type: ignore[override]
            for i in range(3):
                gap = i == 1
                yield (
                    i,
                    {
                        "key": "" if gap else f"key {i}",
                        "image": picture_bytes((i, 0, 0), (4, 4)),
                        "text": " " if gap else f"caption {i}",
                        "captions": [""] if gap else ["a", "b"],
                        "label": -1 if gap else i // 2,
                        "labels": [-1] if gap else [i // 2],
                        "place": "" if gap else "here",
                        "size": np.nan if gap else 1.5,
                        "number": -1 if gap else i,
                        "speech": [{"audio": ""}, {"audio": "sound"}] if i == 2 else [{"audio": ""}] if gap else [],
                    },
                )

    folder = str(tmp_path_factory.mktemp("gaps"))
    Gaps(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_what_a_record_lacks_is_none_in_every_column(gaps_dir):
    records = Tfds("gaps", {"audio": "speech/audio", "id": "key"}, data_dir=gaps_dir).open("train")
    rows = {record["number"]: record for record in (records[i] for i in range(3))}
    gap, whole = rows[-1], rows[2]
    gone = {"text", "captions", "label", "labels", "place", "size", "audio"}
    assert {name for name, value in gap.items() if value is None} == gone
    assert gap["number"] == -1  # a number, not a class
    assert gap["id"].startswith("train/")
    assert (whole["id"], whole["text"], whole["label"], whole["labels"]) == ("key 2", "caption 2", 1, [1])
    assert (whole["place"], whole["size"], whole["audio"]) == ("here", 1.5, [b"sound"])
    assert rows[0]["audio"] is None
    assert set(records.columns) == set(gap)


def test_a_class_is_a_caption_by_its_name_and_a_number_is_none(gaps_dir):
    records = Tfds("gaps", {"text": "label"}, data_dir=gaps_dir).open("train")
    assert {r["number"]: r["text"] for r in (records[i] for i in range(3))} == {0: "cat", -1: None, 2: "dog"}
    records = Tfds("gaps", {"text": "labels"}, data_dir=gaps_dir).open("train")
    assert {r["number"]: r["text"] for r in (records[i] for i in range(3))} == {0: ["cat"], -1: None, 2: ["dog"]}
    with pytest.raises(UserError, match=r"'text': 'number'\}\): it holds numbers \(int64\), and captions are texts"):
        Tfds("gaps", {"text": "number"}, data_dir=gaps_dir).open("train")


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


def test_a_dataset_is_known_by_its_version_and_by_what_its_files_are_said_to_hold(tfds_dir, tmp_path):
    found = Tfds("toy", data_dir=tfds_dir).open("train").fingerprint()
    assert (found["rows"], found["dataset"]) == (24, "toy/1.0.0, train")
    assert Tfds("toy", data_dir=tfds_dir).open("train[:50%]").fingerprint() == {
        **found,
        "rows": 12,
        "dataset": "toy/1.0.0, train[:50%]",
    }
    for place in ("same", "other"):
        shutil.copytree(Path(tfds_dir) / "toy", tmp_path / place / "toy")
    info = tmp_path / "other" / "toy" / "1.0.0" / "dataset_info.json"
    content = json.loads(info.read_text())
    for split in content["splits"]:
        split["numBytes"] = str(int(split["numBytes"]) + 1)
    info.write_text(json.dumps(content))
    same, other = (Tfds("toy", data_dir=str(tmp_path / p)).open("train").fingerprint() for p in ("same", "other"))
    assert same == found
    assert other["files"] != found["files"]


def test_errors_of_tfds_say_what_is_there(tfds_dir):
    with pytest.raises(SplitNotFoundError, match="no split 'validation', it has "):
        Tfds("toy", data_dir=tfds_dir).open("validation")
    with pytest.raises(UserError, match=r"no 'texts' among group, id,.*did you mean text\?"):
        Tfds("toy", fields={"text": "texts"}, data_dir=tfds_dir).open("train")
    with pytest.raises(UserError, match=r"no 'audoi' among audio, voice.*did you mean audio\?"):
        Tfds("toy", fields={"audio": "speech/audoi"}, data_dir=tfds_dir).open("train")


def test_a_dataset_that_is_not_built_is_prepared_first(tfds_dir, tmp_path, monkeypatch):
    built = []

    def prepare(name: str, data_dir: str | None = None) -> Path:
        built.append(name)
        (tmp_path / "toy").symlink_to(Path(tfds_dir) / "toy")
        return tmp_path / "toy" / "1.0.0"

    monkeypatch.setattr(tfds_records, "prepare_dataset", prepare)
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
    monkeypatch.setattr(tfds_records, "prepare_dataset", prepare)
    monkeypatch.setattr(tfds_records, "is_ours", lambda name: True)
    assert len(Tfds("toy").open("test", data_dir=str(tmp_path))) == 6
    assert asked == [("toy", str(tmp_path))]
    assert len(Tfds("toy:0.9.0").open("test", data_dir=str(tmp_path))) == 6  # asked for by its version
    assert len(asked) == 1
