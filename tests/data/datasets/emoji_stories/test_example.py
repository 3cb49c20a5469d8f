import json
from itertools import pairwise

import numpy as np
import pytest

from mmjax.data.datasets.emoji_stories.drawing import painted_frames
from mmjax.data.datasets.emoji_stories.example import story_example
from mmjax.data.datasets.emoji_stories.telling import event_label, sentence
from tests.data.datasets.emoji_stories.made import read
from tests.data.datasets.emoji_stories.sounds import quiet


@pytest.fixture(scope="module", params=[10, 11], ids=["mp4", "webm"])
def story(request, planned):
    return planned["validation"][request.param]


@pytest.fixture(scope="module")
def example(story):
    return story_example(story, shifted=False)


def cue_lines(subtitles):
    return [block.splitlines() for block in subtitles.strip().split("\n\n")[1:]]


def seconds(clock):
    hours, minutes, rest = clock.split(":")
    return 3_600 * int(hours) + 60 * int(minutes) + float(rest)


def test_words_are_those_of_the_events_and_are_heard_in_the_file_at_their_times(story, example):
    """Decoded, with what the codecs add: where words are told to be it is loud, and between them quiet."""
    words = json.loads(example["words"])
    said = [sentence(event, story.names) for event in story.plot.events]
    assert [word["word"] for word in words] == " ".join(said).split()
    found = read(example["video"])
    begins = np.cumsum([0, *story.lengths]) / 12
    echoes = 0  # gaps that aren't quiet in a voice that echoes
    for begin, end in pairwise(begins):
        mine = [word for word in words if begin <= word["start"] < end]
        silent = quiet(found.sound[round(begin * found.rate) : round(end * found.rate)], found.rate, share=0.025)
        for word, following in pairwise(mine):
            assert word["start"] < word["end"] <= following["start"]
            runs = [(a + begin, b + begin) for a, b in silent]
            runs = [(a, b) for a, b in runs if a < following["start"] + 0.01 and b > word["end"] - 0.01]
            echoes += not runs
            for a, b in runs:
                assert a == pytest.approx(word["end"], abs=0.05)
                assert b == pytest.approx(following["start"], abs=0.05)
    assert echoes <= (0.2 * len(words) if "+f" in story.voice.voice else 0)
    assert all(any(0 <= word["start"] - begin < 0.05 for word in words) for begin in begins[:-1])


def test_subtitles_have_a_cue_for_each_sentence_from_its_first_word_to_its_last(story, example):
    words = json.loads(example["words"])
    cues = cue_lines(example["subtitles"])
    assert example["subtitles"].startswith("WEBVTT\n\n")
    assert len(cues) == len(story.plot.events)
    for (times, told), event in zip(cues, story.plot.events, strict=True):
        said = sentence(event, story.names)
        assert told == f"{said.capitalize()}."
        begin, end = map(seconds, times.split(" --> "))
        mine, words = words[: len(said.split())], words[len(said.split()) :]
        assert begin == pytest.approx(mine[0]["start"], abs=1e-3)
        assert end == pytest.approx(mine[-1]["end"], abs=1e-3)


def test_the_other_fields_are_the_story_s(story, example):
    assert example["emoji"] == story.emoji
    assert example["voice"] == story.voice.voice
    assert example["events"] == [event_label(event, story.names) for event in story.plot.events]
    assert example["id"] == story.id
    assert bool(example["novel"]) == story.novel
    assert example["shift"] == 0
    assert all(name in example["text"].lower() for name in story.names)
    assert 40_000 < len(example["video"]) < 150_000


def test_the_same_story_is_the_same_bytes(story, example, planned):
    story_example(planned["train"][3], shifted=True)
    assert story_example(story, shifted=False) == example


def test_of_two_twins_one_has_a_shifted_sound_and_both_the_same_picture_as_before(story, example):
    again = story_example(story, shifted=True)
    changed = {key for key in example if again[key] != example[key]}
    if not story.late:
        assert not changed
        return
    assert changed == {"video", "words", "subtitles", "shift"}
    assert 3 <= abs(again["shift"]) <= 6
    drawn = painted_frames(story.plot, story.emoji, story.lengths, story.tone)
    shown = read(again["video"])
    assert ((shown.frames.astype(float) - drawn) ** 2).mean() < 60
    words = json.loads(again["words"])
    total = sum(story.lengths) / 12
    assert sorted(word["word"] for word in words) == sorted(word["word"] for word in json.loads(example["words"]))
    assert all(0 <= word["start"] < word["end"] <= total for word in words)
    assert all(a["end"] <= b["start"] for a, b in pairwise(words))
    assert [words for _, words in cue_lines(again["subtitles"])] != [
        words for _, words in cue_lines(example["subtitles"])
    ]
    silent = quiet(shown.sound, shown.rate, share=0.05)
    for word in words:
        assert any(abs(end - word["start"]) < 0.05 for _, end in silent) or word["start"] < 0.05
