import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data.datasets.spoken_emoji import example as emoji_example
from mmjax.data.datasets.spoken_emoji.catalogue import Entry, Utterance, utterances_of
from mmjax.data.datasets.spoken_emoji.example import SAMPLE_RATE, make_example
from mmjax.errors import UserError


def entry(name="grinning cat", id="1F63A", utterances=None):
    said = utterances or utterances_of(id, "train")[:2]
    return Entry(id, {"en": name, "de": "katze"}, "smileys-emotion", "cat-face", "train", said)


def samples(audio):
    return soundfile.read(io.BytesIO(audio), dtype="int16")


def test_an_example_does_not_depend_on_what_was_made_before():
    first = make_example(entry(), ("en",))
    make_example(entry("an entirely different sentence", "1F680"), ("en",))
    assert make_example(entry(), ("en",)) == first


def test_an_example_holds_what_the_entry_says():
    example = make_example(entry(), ("de", "en"))
    assert {k: example[k] for k in ("id", "text", "names", "group", "subgroup")} == {
        "id": "1F63A",
        "text": "grinning cat",
        "names": {"de": "katze", "en": "grinning cat"},
        "group": "smileys-emotion",
        "subgroup": "cat-face",
    }
    assert [speech["voice"] for speech in example["speech"]] == [said.voice for said in entry().utterances]
    for speech in example["speech"]:
        heard, rate = samples(speech["audio"])
        assert rate == SAMPLE_RATE
        assert heard.ndim == 1
        assert 0.4 * rate < len(heard) < 2 * rate
        assert np.abs(heard[: rate // 20].astype(int)).max() > 0  # no silence before the first sound


def test_a_picture_is_drawn_over_white():
    picture = np.asarray(Image.open(io.BytesIO(emoji_example.draw("1F34E"))))  # red apple
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    red, green, blue = picture[36, 32].astype(int)
    assert red > green + 50
    assert red > blue + 50


def test_silence_is_trimmed_but_for_a_margin():
    waveform = np.zeros(16_000)
    waveform[4_000:8_000] = 1_000.0
    waveform[7_999] = -1_000.0
    trimmed = emoji_example.trim(waveform)
    assert len(trimmed) == 4_000 + 2 * 160
    np.testing.assert_array_equal(trimmed[160:-160], waveform[4_000:8_000])
    assert len(emoji_example.trim(np.zeros(100))) == 0


def test_resampling_keeps_a_tone_and_gives_the_same_every_time():
    time = np.arange(22_050) / 22_050
    tone = np.round(8_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    resampled = emoji_example.resample(tone, 22_050)
    expected = 8_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(resampled) == 16_000
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=8)
    np.testing.assert_array_equal(emoji_example.resample(tone, 22_050), resampled)


def test_flac_keeps_the_waveform_to_half_a_step_and_clips():
    waveform = np.random.default_rng(0).normal(0, 8_000, 4_000)
    waveform[:2] = 60_000, -60_000
    heard, rate = samples(emoji_example.flac(waveform))
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(heard[2:], np.clip(waveform[2:], -32_768, 32_752), atol=8)
    assert heard[0] == 32_752
    assert heard[1] == -32_768


def test_a_name_that_cannot_be_heard_is_an_error():
    silent = entry(" ", utterances=(Utterance("en-us+f2", 175, 50, 50),))
    with pytest.raises(UserError, match=r"silent in the voice 'en-us\+f2'"):
        make_example(silent, ("en",))
