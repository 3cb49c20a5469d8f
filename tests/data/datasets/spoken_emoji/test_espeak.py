import re

import numpy as np
import pytest

from mmjax.data.datasets.spoken_emoji import espeak
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
