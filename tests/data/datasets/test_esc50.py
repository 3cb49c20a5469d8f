"""The builder of ESC-50 on a tiny archive of its layout."""

import csv
import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from mmjax.data.datasets.esc50 import ARCHIVE, CLASSES, COMMIT, Esc50
from mmjax.data.datasets.prepare import builder, prepare_dataset
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.errors import UserError

RATE = 44_100
KINDS = ("dog", "rain", "siren")


def archive(folder: Path, per_fold: int = 1, extra: tuple[str, ...] = (), lost: str = "") -> Path:
    """Sounds of a few ms, a tone a kind, in five folds: meta/esc50.csv and audio/*.wav within one folder."""
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as files:
        for fold in range(1, 6):
            for kind in KINDS:
                for take in range(per_fold):
                    name = f"{fold}-{1000 + take}-A-{CLASSES.index(kind)}.wav"
                    target = CLASSES.index(kind)
                    table.writerow([name, fold, target, kind, kind != "siren", 1000 + take, "A"])
                    if name != lost:
                        wave = np.sin(2 * np.pi * 300 * 3 ** KINDS.index(kind) * (np.arange(882) + fold) / RATE)
                        stream = io.BytesIO()
                        soundfile.write(stream, 0.5 * wave, RATE, format="WAV")
                        files.writestr(f"ESC-50-{COMMIT}/audio/{name}", stream.getvalue())
        files.writestr(f"ESC-50-{COMMIT}/meta/esc50.csv", rows.getvalue())
        for name in extra:
            files.writestr(name, b"evil")
    return path


@pytest.fixture
def offline(monkeypatch):
    """TFDS's download manager gives the tiny archive for the real address."""

    def use(path: Path) -> list[str]:
        asked: list[str] = []

        def download(self, url):
            asked.append(url)
            return path

        monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
        return asked

    return use


def test_prepare_builds_it_by_name_from_the_archive(tmp_path, offline):
    asked = offline(archive(tmp_path))
    prepare_dataset("esc50", str(tmp_path / "data"))
    assert asked == [ARCHIVE]
    records = Tfds("esc50", data_dir=str(tmp_path / "data")).open("train")
    assert len(records) == 15
    assert records.class_names["label"] == CLASSES
    for record in (records[i] for i in range(15)):
        fold, _, _, target = record["id"].removesuffix(".wav").split("-")
        assert record["fold"] == int(fold)
        assert record["label"] == int(target)  # our order of the classes is the archive's
        assert record["esc10"] == (CLASSES[record["label"]] != "siren")
        assert len(DecodeAudio(RATE)(record["audio"], None)) == 882
        assert len(DecodeAudio(16_000)(record["audio"], None)) == 320


def test_names_that_point_out_of_the_archive_are_not_followed(tmp_path, offline):
    offline(archive(tmp_path, extra=("../evil.txt", "/tmp/mmjax-evil.txt", "a/../../evil.txt")))
    before = set(tmp_path.rglob("evil*"))
    prepare_dataset("esc50", str(tmp_path / "data"))
    assert set(tmp_path.rglob("evil*")) == before == set()
    assert not (tmp_path.parent / "evil.txt").exists()
    assert not Path("/tmp/mmjax-evil.txt").exists()


def test_a_broken_archive_says_what_is_missing_and_leaves_nothing(tmp_path, offline):
    offline(archive(tmp_path, lost=f"3-1000-A-{CLASSES.index('rain')}.wav"))
    with pytest.raises(UserError, match=r"names 3-1000-A-10\.wav in meta/esc50\.csv, but has no audio/3-1000"):
        prepare_dataset("esc50", str(tmp_path / "data"))
    assert not builder("esc50", str(tmp_path / "data")).data_path.exists()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as files:
        files.writestr("x/readme.txt", b"")
    offline(tmp_path / "other.zip")
    with pytest.raises(UserError, match="isn't the archive of ESC-50"):
        prepare_dataset("esc50", str(tmp_path / "data"))


def test_the_download_is_pinned_and_checked():
    assert COMMIT in ARCHIVE
    assert Esc50.url_infos is not None
    ((url, info),) = Esc50.url_infos.items()
    assert url == ARCHIVE
    assert len(bytes.fromhex(info.checksum)) == 32
    assert dataclasses.asdict(info)["filename"].endswith(".zip")
    assert len(set(CLASSES)) == 50
