"""What is told of a sound without decoding it."""

import numpy as np
import pytest

from mmjax.data.decoding.sounds import lasting
from tests.data.conftest import sound_bytes


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_how_long_it_lasts_by_its_header(format, tmp_path):
    content = sound_bytes(0.3 * np.sin(np.arange(20_000) / 9), 8_000, format)
    (tmp_path / "a.bin").write_bytes(content)
    assert lasting(content) == pytest.approx(2.5, abs=0.2 if format == "MP3" else 0)
    assert lasting(tmp_path / "a.bin") == lasting(content)


def test_what_does_not_say_how_long_it_lasts(tmp_path):
    assert lasting(b"no sound") is None
    assert lasting(sound_bytes(np.zeros(99), format="WAV")[:20]) is None
    assert lasting(tmp_path / "gone.wav") is None
