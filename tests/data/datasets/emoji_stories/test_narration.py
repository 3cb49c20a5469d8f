from itertools import pairwise

import numpy as np
import pytest
import soxr

from mmjax.data.datasets.emoji_stories.narration import (
    FRAME_RATE,
    FRAME_SAMPLES,
    SOUND_RATE,
    Narration,
    narrated,
    shifted_narration,
    story_voice,
)
from mmjax.data.datasets.spoken_emoji.catalogue import TEST_VOICES, TRAIN_VARIANTS, VALIDATION_VOICES, Utterance
from mmjax.data.datasets.spoken_emoji.espeak import synthesizer
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.errors import UserError
from tests.data.datasets.emoji_stories.sounds import quiet

SAID = ["the snail meets the guitar", "the bus moves to the left", "the police officer leaves to the right"]
LENGTHS = [30, 29, 34]
VOICES = [*(f"en-us+{variant}" for variant in TRAIN_VARIANTS), *VALIDATION_VOICES, *TEST_VOICES]


@pytest.fixture(scope="module")
def spoken():
    return {voice: narrated(SAID, LENGTHS, Utterance(voice, 178, 50, 50)) for voice in VOICES}


@pytest.mark.parametrize("voice", VOICES)
def test_words_are_heard_between_silences_at_their_times(spoken, voice):
    """On the sound alone: between any two words it is quiet, from the end of the one to the begin of the next."""
    sound, sentences, _ = spoken[voice]
    silent = quiet(sound)
    for words in sentences:
        for word, following in pairwise(words):
            runs = [(a, b) for a, b in silent if a < following.start + 0.01 and b > word.end - 0.01]
            assert len(runs) == 1
            begin, end = runs[0]
            assert end - begin > 0.02
            assert begin == pytest.approx(word.end, abs=0.02)
            assert end == pytest.approx(following.start, abs=0.02)
        within = [(a, b) for a, b in silent if a > words[0].start and b < words[-1].end and b - a > 0.15]
        assert not within


@pytest.mark.parametrize("voice", ["en-us+f5", "en-us+m7", "en-us+zac", *TEST_VOICES])
def test_words_are_where_words_that_are_spoken_alone_sound_like_them(voice):
    said = ["the snail shrinks", "the guitar meets the tiger", "the police officer turns"]
    sound, sentences, _ = narrated(said, LENGTHS, Utterance(voice, 178, 50, 50))
    errors = {}
    for word in (word for words in sentences for word in words if word.text not in ("the", "meets")):
        alone = synthesizer().speak_marked(word.text, voice, rate=178).samples.astype(float)
        alone = soxr.resample(alone, synthesizer().sample_rate, SOUND_RATE)
        first = np.nonzero(np.abs(alone) > 0.02 * np.abs(alone).max())[0][0]
        wanted = spectra(np.concatenate([np.zeros(SOUND_RATE // 20), alone[first : first + SOUND_RATE // 4]]))
        begin = max(0, round((word.start - 0.3) * SOUND_RATE))
        heard = spectra(sound[begin : round((word.end + 0.4) * SOUND_RATE)].astype(float))
        places = range(len(heard) - len(wanted) + 1)
        best = min(places, key=lambda place: ((heard[place : place + len(wanted)] - wanted) ** 2).mean())
        errors[word.text] = begin / SOUND_RATE + best * 0.005 + 0.05 - word.start
    assert len(errors) == 7
    assert np.median(np.abs(list(errors.values()))) < 0.01
    assert max(abs(error) for error in errors.values()) < 0.05, errors


def spectra(sound):
    """Logarithms of magnitudes, every 5 ms."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, SOUND_RATE // 50)[:: SOUND_RATE // 200]
    return np.log(np.abs(np.fft.rfft(windows * np.hanning(windows.shape[1])))[:, 1:160] + 30)


@pytest.mark.parametrize("voice", VOICES)
def test_each_sentence_begins_with_its_event_and_ends_before_the_next(spoken, voice):
    sound, sentences, shift = spoken[voice]
    assert len(sound) == sum(LENGTHS) * FRAME_SAMPLES
    assert shift == 0
    begins = np.cumsum([0, *LENGTHS]) / FRAME_RATE
    for words, begin, end in zip(sentences, begins, begins[1:], strict=False):
        assert begin <= words[0].start < begin + 0.05
        assert words[-1].end <= end - 0.1 + 1e-3
        assert not np.abs(sound[round((end - 0.05) * SOUND_RATE) : round(end * SOUND_RATE)].astype(int)).max() > 300
    assert [" ".join(word.text for word in words) for words in sentences] == SAID


@pytest.mark.parametrize("voice", VOICES)
def test_times_are_monotone_and_no_word_overlaps_its_next(spoken, voice):
    words = [word for words in spoken[voice].sentences for word in words]
    assert all(word.start < word.end for word in words)
    assert all(word.end <= following.start for word, following in pairwise(words))


def test_a_narration_does_not_depend_on_what_was_said_before():
    voice = Utterance("en-us+m2", 178, 50, 50)
    first = narrated(SAID[:2], LENGTHS[:2], voice)
    narrated(["the goat turns"], [30], Utterance("en-us+f5", 170, 40, 60))
    synthesizer().speak("another sentence", "en+m3")
    again = narrated(SAID[:2], LENGTHS[:2], voice)
    np.testing.assert_array_equal(again.sound, first.sound)
    assert again.sentences == first.sentences


def test_what_would_outlast_its_event_is_spoken_faster_or_told():
    said = "the police officer meets the woman mechanic"
    voice = Utterance("en-us+m7", 170, 50, 50)
    slow, fast = (narrated([said], [length], voice).sentences[0] for length in (36, 25))
    assert slow[-1].end > 25 / FRAME_RATE - 0.1
    assert fast[-1].end <= 25 / FRAME_RATE - 0.1 + 1e-3
    assert len(fast) == len(slow)
    with pytest.raises(
        UserError, match=r"'the police officer .* takes 1\.\d+ s in the voice .*, and its event has 0\.90 s"
    ):
        narrated([said], [12], voice)


def test_a_word_that_is_not_marked_is_told(monkeypatch):
    speak = synthesizer().speak_marked

    def fewer(*arguments, **settings):
        marked = speak(*arguments, **settings)
        return marked._replace(begins=dict(list(marked.begins.items())[1:]))

    monkeypatch.setattr(synthesizer(), "speak_marked", fewer)
    with pytest.raises(UserError, match="marks 2 words in 'the goat turns', which has 3"):
        narrated(["the goat turns"], [30], Utterance("en-us+m7", 170, 50, 50))


def made(seconds_each=2.5, count=6):
    """A tone for each word: the k-th sentence has two, at 200 + 100 k Hz."""
    sound, sentences = np.zeros(round(seconds_each * count * SOUND_RATE), np.int16), []
    for k in range(count):
        begin = k * seconds_each
        spans = [(begin + 0.02, begin + 0.5), (begin + 0.6, begin + 1.6)]
        for start, end in spans:
            time = np.arange(round(start * SOUND_RATE), round(end * SOUND_RATE))
            sound[time] = 8_000 * np.sin(2 * np.pi * (200 + 100 * k) * time / SOUND_RATE)
        sentences.append(tuple(TimedWord(f"{k}", start, end) for start, end in spans))
    return Narration(sound, tuple(sentences))


def test_a_shifted_sound_keeps_its_words_to_its_times():
    plain = made()
    shifts = []
    for n in range(40):
        sound, sentences, shift = shifted_narration(plain, f"{n}")
        shifts.append(shift)
        np.testing.assert_array_equal(np.sort(sound), np.sort(plain.sound))
        assert 3 <= abs(shift) <= 6
        assert sorted(words[0].text for words in sentences) == list("012345")
        before = {words[0].text: words for words in plain.sentences}
        for words in sentences:
            assert 0 <= words[0].start < words[-1].end <= 15
            old = before[words[0].text]
            for word, was in zip(words, old, strict=True):
                assert (word.start - was.start - shift) % 15 == pytest.approx(0, abs=1e-3) or (
                    word.start - was.start - shift
                ) % 15 == pytest.approx(15, abs=1e-3)
                part = sound[round(word.start * SOUND_RATE) : round(word.end * SOUND_RATE)].astype(float)
                peak = np.argmax(np.abs(np.fft.rfft(part))) * SOUND_RATE / len(part)
                assert peak == pytest.approx(200 + 100 * int(word.text), abs=3)
        starts = [words[0].start for words in sentences]
        assert starts == sorted(starts)
    assert len(set(shifts)) > 15
    assert min(shifts) < 0 < max(shifts)


def test_one_that_is_too_short_to_be_shifted_is_told():
    with pytest.raises(UserError, match=r"the sound of 'a', of 2\.5 s, can't be shifted by 3 to 6 s"):
        shifted_narration(made(count=1), "a")


def test_voices_are_of_the_split_and_differ_by_story():
    train = [story_voice(f"train-{n:05d}", "train") for n in range(50)]
    assert len({voice.voice for voice in train}) > 20
    assert story_voice("test-00001", "test").voice in TEST_VOICES
    assert story_voice("train-00000", "train") == train[0]
