import errno
import importlib.util
import multiprocessing
import shutil
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from mmjax.data import Tfds, datasets
from mmjax.data.datasets import prepare as prepare_module
from mmjax.data.datasets.prepare import DatasetError, builder, is_ours, ours, prepare_dataset


class FourNumbers(tfds.core.GeneratorBasedBuilder):
    """Four numbers, a second's work; each build leaves a line in `builds` beside the data."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        with (Path(self.data_dir_root) / "builds").open("a") as builds:
            builds.write("built\n")
        for number in range(4):
            time.sleep(0.25)
            yield number, {"text": str(number)}


class HandMade(FourNumbers):
    """Files that a person must fetch."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Sign a form and put numbers.tar here."

    def _split_generators(self, dl_manager):
        assert dl_manager.manual_dir  # TFDS raises here
        return {"train": self._generate_examples()}


class FullDisk(FourNumbers):
    """A disk that fills up in the middle."""

    def _generate_examples(self):
        yield 0, {"text": "0"}
        raise OSError(errno.ENOSPC, "No space left on device")


def read(data_dir):
    return sorted(record["text"] for record in builder("four_numbers", str(data_dir)).as_data_source(split="train"))


def test_a_tfds_dataset_is_built_once_in_a_format_that_is_read_by_index(tmp_path):
    prepare_dataset("four_numbers", str(tmp_path))
    prepare_dataset("four_numbers", str(tmp_path))
    assert read(tmp_path) == [b"0", b"1", b"2", b"3"]
    assert (tmp_path / "builds").read_text().count("built") == 1


def test_two_processes_at_once_build_once_and_both_can_read(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=prepare_four_numbers, args=(str(tmp_path),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "builds").read_text().count("built") == 1


def prepare_four_numbers(data_dir):
    prepare_dataset("four_numbers", data_dir)
    assert read(data_dir) == [b"0", b"1", b"2", b"3"]


def test_who_comes_second_waits(tmp_path):
    made, order = builder("four_numbers", str(tmp_path)), []

    def second():
        with prepare_module._alone(made):
            order.append("second")

    with prepare_module._alone(made):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_what_a_killed_build_left_is_swept_and_never_read(tmp_path):
    left = tmp_path / "four_numbers" / "incomplete.ABC123_1.0.0"
    left.mkdir(parents=True)
    (left / "four_numbers-train.array_record-00000-of-00001").write_bytes(b"half")
    other_version = left.with_name("incomplete.ABC123_2.0.0")
    other_version.mkdir()
    prepare_dataset("four_numbers", str(tmp_path))
    assert not left.exists()
    assert other_version.exists()
    assert len(read(tmp_path)) == 4


@pytest.mark.parametrize(("name", "near"), [("spoken_emojy", "spoken_emoji"), ("mnst", "mnist")])
def test_an_unknown_name_names_the_nearest(name, near):
    with pytest.raises(DatasetError, match=f"no dataset '{name}'.*{near}"):
        prepare_dataset(name)


def test_one_of_ones_own_is_said_to_be_read_from_where_it_was_built(tmp_path):
    with pytest.raises(DatasetError, match=rf"no dataset 'cc12m/small:1.0.0'.*built it, {tmp_path}/cc12m/small$"):
        prepare_dataset("cc12m/small:1.0.0", str(tmp_path))


def test_an_unknown_config_or_version_names_what_there_is(tmp_path):
    with pytest.raises(DatasetError, match=r"no 'spoken_emoji/english'.*configs en, multilingual"):
        prepare_dataset("spoken_emoji/english", str(tmp_path))
    with pytest.raises(DatasetError, match=r"no 'spoken_emoji:9.9.9'.*version 1\."):
        prepare_dataset("spoken_emoji:9.9.9", str(tmp_path))


def test_a_missing_extra_gives_the_pip_line(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "resvg_py" else find(name))
    with pytest.raises(DatasetError, match=r"needs the packages resvg_py, .*pip install 'mmjax\[demo\]'"):
        prepare_dataset("spoken_emoji", str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
@pytest.mark.parametrize("name", ["speech_commands", "laion400m/images"])
def test_a_dataset_that_needs_tensorflow_says_so(name, tmp_path):
    """LAION-400M is among those that TFDS doesn't import where an earlier builder lacks a package."""
    with pytest.raises(DatasetError, match=rf"'{name}' can't be .* TensorFlow: pip install 'mmjax\[tf\]'"):
        prepare_dataset(name, str(tmp_path))


def test_a_manual_download_says_what_to_fetch_and_where(tmp_path):
    with pytest.raises(DatasetError, match=r"by hand, into .*manual: Sign a form and put numbers\.tar here\."):
        prepare_dataset("hand_made", str(tmp_path))


def test_a_full_disk_is_told_before_the_build_with_folder_and_bytes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1_000_000, 1_000_000))
    with pytest.raises(DatasetError, match=rf"{tmp_path}.*: 450,000,000 bytes are needed, 1,000,000 are free"):
        prepare_dataset("spoken_emoji", str(tmp_path))


def test_a_disk_that_fills_up_during_the_build_leaves_nothing(tmp_path):
    with pytest.raises(DatasetError, match=f"no space for full_disk/1.0.0 in {tmp_path}"):
        prepare_dataset("full_disk", str(tmp_path))
    assert not builder("full_disk", str(tmp_path)).data_path.exists()
    assert not list(tmp_path.rglob("*array_record*"))


def test_files_without_random_access_are_refused(tmp_path, monkeypatch):
    prepare_dataset("four_numbers", str(tmp_path))
    for info in tmp_path.rglob("dataset_info.json"):
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DatasetError, match="holds tfrecord files"):
        prepare_dataset("four_numbers", str(tmp_path))


ADDED = """
import tensorflow_datasets as tfds

from mmjax.data.datasets.builder import OwnBuilder


class {name}(OwnBuilder):
    VERSION = tfds.core.Version("1.0.0")
    needs = {needs}

    def described(self):
        return {{"text": tfds.features.Text()}}

    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples()}}

    def _generate_examples(self):
        yield from enumerate(({{"id": "r", "text": "red"}}, {{"id": "b", "text": "blue"}}))
"""


def test_a_dataset_is_a_file_in_the_folder_and_is_found_by_its_name(tmp_path, monkeypatch):
    """Nothing else is edited: it is built, read, listed, and its packages are asked for."""
    (tmp_path / "two_words.py").write_text(ADDED.format(name="TwoWords", needs="()"))
    (tmp_path / "two_more.py").write_text(ADDED.format(name="TwoMore", needs="('no_such_package',)"))
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    records = Tfds("two_words").open("train", str(tmp_path / "built"))
    assert sorted(records[i]["text"] for i in range(len(records))) == ["blue", "red"]
    assert (tmp_path / "built" / "two_words" / "1.0.0" / "features.json").exists()
    own = ["asked_emoji", "described_emoji", "emoji_stories", "esc50", "spoken_emoji", "stamps", "tagged_emoji"]
    assert ours() == [*own, "two_more", "two_words"]
    with pytest.raises(DatasetError, match=r"^building two_more needs the packages no_such_package, which aren't"):
        prepare_dataset("two_more", str(tmp_path / "built"))


def test_what_else_lies_in_the_folder_is_no_dataset():
    assert not any(map(is_ours, ("prepare", "builder", "build_progress", "without_tensorflow", "os.path", "mnist", "")))
    assert is_ours("spoken_emoji/small:1.0.1")
