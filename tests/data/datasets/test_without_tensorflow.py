"""A description that needs TensorFlow, as TFDS writes it with TensorFlow at hand, read without it."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from etils import epath

from mmjax.data.datasets.prepare import DatasetError, prepare_dataset
from mmjax.data.datasets.without_tensorflow import FEATURES, ORIGINAL, free, rates
from mmjax.data.sources import tfds_records
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.audio import DecodeAudio

# What tfds.features.Audio(file_format="wav", sample_rate=8_000, dtype=np.int16) is in features.json (TFDS 4.9.10).
AUDIO = {
    "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
    "audio": {
        "dtype": "int16",
        "encoding": "NONE",
        "fileFormat": "wav",
        "sampleRate": "8000",
        "shape": {"dimensions": ["-1"]},
    },
}
WORDS = ("yes", "no", "_silence_")


def wave(number: int) -> np.ndarray:
    """A tenth of a second at 8 kHz, of a pitch for each word."""
    return (8000 * np.sin(2 * np.pi * 300 * 3 ** (number % 3) * (np.arange(800) + number) / 8000)).astype(np.int16)


def write_commands(folder, name="speech_commands", splits=("train", "test")):
    """A dataset of waveforms of 8 kHz without a header, as it is on the disk once TensorFlow has built it."""

    class Commands(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("0.0.3")
        pkg_dir_path = epath.Path(__file__).parent
        url_infos = {}

        def _info(self):
            features = {
                "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16),
                "label": tfds.features.ClassLabel(names=list(WORDS)),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):  # type: ignore[override]
            for i in range(12):
                yield i, {"audio": wave(i), "label": i % 3}

    Commands.name = name
    made = Commands(data_dir=str(folder), file_format="array_record")
    made.download_and_prepare()
    path = made.data_path / FEATURES
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["audio"] = AUDIO
    path.write_text(json.dumps(content))
    return made.data_path


@pytest.mark.skipif("tensorflow" in sys.modules, reason="TensorFlow is at hand")
def test_waveforms_that_tensorflow_wrote_are_read_without_it(tmp_path):
    folder = write_commands(tmp_path)
    records = Tfds("speech_commands", data_dir=str(tmp_path)).open("test")
    assert "tensorflow" not in sys.modules
    assert rates(Path(folder)) == {"audio": 8000}
    assert json.loads((folder / ORIGINAL).read_text())["featuresDict"]["features"]["audio"] == AUDIO
    assert records.class_names == {"label": WORDS}
    found = {tuple(DecodeAudio(8000)(records[i]["audio"], None).tolist()) for i in range(12)}
    assert found == {tuple(wave(i).tolist()) for i in range(12)}
    assert len(DecodeAudio(16_000)(records[0]["audio"], None)) == 1600  # its rate is known


def test_a_description_is_rewritten_once_and_only_where_it_must_be(tmp_path):
    held = {"pythonClassName": AUDIO["pythonClassName"], "audio": {**AUDIO["audio"], "lazyDecode": True}}
    inside = {"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {"speech": AUDIO, "raw": held}}}
    several = {"pythonClassName": "x.Sequence", "sequence": {"feature": inside}}
    text = json.dumps({"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {"turns": several}}})
    (tmp_path / FEATURES).write_text(text)
    free(tmp_path)
    first = (tmp_path / FEATURES).read_text()
    found = json.loads(first)["featuresDict"]["features"]["turns"]["sequence"]["feature"]["featuresDict"]["features"]
    assert found["speech"]["tensor"] == {"shape": {"dimensions": ["-1"]}, "dtype": "int16", "encoding": "none"}
    assert found["raw"] == held
    assert rates(tmp_path)["turns/speech"] == 8000
    free(tmp_path)
    assert (tmp_path / FEATURES).read_text() == first
    assert (tmp_path / ORIGINAL).read_text() == text


@pytest.mark.skipif("tensorflow" in sys.modules, reason="TensorFlow is at hand")
def test_prepare_frees_what_was_built_elsewhere_and_takes_the_newest(tmp_path):
    folder = write_commands(tmp_path)
    older = folder.parent / "0.0.2"
    shutil.copytree(folder, older)
    assert prepare_dataset("speech_commands", str(tmp_path)) == folder
    assert prepare_dataset("speech_commands:0.0.2", str(tmp_path)) == older
    with pytest.raises(DatasetError, match=r"there is no 'speech_commands:0\.0\.9'"):
        prepare_dataset("speech_commands:0.0.9", str(tmp_path))


def test_a_waveform_keeps_its_samples_and_what_is_none_stays_as_it_is():
    stream = tfds_records._sound(wave(3).astype(np.int64), 8000)
    samples, rate = soundfile.read(io.BytesIO(stream), dtype="int16")
    assert rate == 8000
    np.testing.assert_array_equal(samples, wave(3))
    loud = np.array([0, 40_000], np.int64)
    assert tfds_records._sound(loud, 8000) is loud
