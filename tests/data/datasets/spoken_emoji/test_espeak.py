import re
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from mmjax.data.datasets.spoken_emoji import espeak
from mmjax.data.datasets.spoken_emoji.catalogue import ACCENTS
from mmjax.errors import UserError


@pytest.fixture(scope="module")
def synthesizer():
    return espeak.synthesizer()


def test_after_a_reset_the_same_words_are_the_same_samples_whatever_was_said_before(synthesizer):
    synthesizer.reset()
    first = synthesizer.speak("red apple", "en-us+f2")
    for words, voice in (("hello there", "en+m3"), ("another sentence", "en-029+m7")):
        synthesizer.speak(words, voice, rate=200)
        synthesizer.reset()
        np.testing.assert_array_equal(synthesizer.speak("red apple", "en-us+f2"), first)


def test_voice_words_and_rate_are_heard(synthesizer):
    synthesizer.reset()
    plain = synthesizer.speak("grinning cat", "en-us+f2", rate=120)
    assert 0.5 < len(plain) / synthesizer.sample_rate < 3
    assert np.abs(plain.astype(int)).max() > 3_000
    slow, fast = (len(synthesizer.speak("grinning cat", "en-us+f2", rate=rate)) for rate in (120, 240))
    assert fast < 0.75 * slow
    other = synthesizer.speak("grinning cat", "en-us+m3", rate=120)
    assert len(other) != len(plain) or not np.array_equal(other, plain)


@pytest.mark.parametrize("voice", ["en-us+nobody", "xx-nowhere"])
def test_an_unknown_voice_is_an_error_that_names_it(synthesizer, voice):
    with pytest.raises(UserError, match=f"no voice {re.escape(repr(voice))}"):
        synthesizer.speak("hello", voice)


def test_accents_are_found_without_a_search_and_sound_as_with_the_library_s_own_folder(synthesizer, monkeypatch):
    """The library opens `lang/NAME` first, and else reads every language and variant that it has."""
    ours = synthesizer._data_path
    theirs = Path(espeakng_loader.get_data_path())
    assert ours != theirs
    for accent in ACCENTS:
        assert (ours / "lang" / accent).is_file()
    said = [f"{accent}+f2" for accent in ACCENTS]

    def spoken() -> list[np.ndarray]:
        synthesizer.reset()
        return [synthesizer.speak("red apple", voice) for voice in said]

    linked = spoken()
    monkeypatch.setattr(synthesizer, "_data_path", theirs)
    for mine, other in zip(linked, spoken(), strict=True):
        np.testing.assert_array_equal(mine, other)
    monkeypatch.undo()
    synthesizer.reset()


def test_words_begin_after_the_gaps_that_are_asked_for(synthesizer):
    """Seen to on the samples: before each word there is a silence, and it ends where the word is told to begin."""
    synthesizer.reset()
    text = "seven dogs run over mountains"
    marked = synthesizer.speak_marked(text, "en-us+m7", gap=10)
    assert sorted(marked.begins) == [0, 6, 11, 15, 20]
    rate = synthesizer.sample_rate
    loud = np.abs(marked.samples.astype(int)) > 100
    for place in (6, 11, 15, 20):
        begin = marked.begins[place]
        assert not loud[begin - rate // 15 : begin].any()
        assert loud[begin : begin + rate // 25].any()
    close = synthesizer.speak_marked(text, "en-us+m7")
    assert len(close.samples) < len(marked.samples) - 4 * rate // 20


def test_a_gap_is_not_kept_for_what_is_spoken_next(synthesizer):
    synthesizer.reset()
    first = synthesizer.speak("red apple", "en-us+f2")
    synthesizer.reset()
    synthesizer.speak_marked("red apple", "en-us+f2", gap=20)
    assert len(synthesizer.speak("red apple", "en-us+f2")) < len(first) + synthesizer.sample_rate // 20
