"""The audio tower equals clips by hand, one at a time, and its front end is the paper's."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import LogMel
from mmjax.models.towers.bare import Incoming
from tests.models.towers.reserve import twin
from tests.models.towers.reserve.towers import SAMPLES, audio, clip_by_hand, drawn

RANDOM = np.random.default_rng(4)
X = RANDOM.integers(-20_000, 20_000, (2, 3, SAMPLES), dtype=np.int16)


@pytest.mark.parametrize("fields", [{}, {"scaled": True}, {"ratio": 2}, {"patch": 4, "ratio": 1}])
def test_tokens_equal_clips_by_hand(fields: dict[str, Any]) -> None:
    tower = audio(**fields)
    variables = drawn(tower, X)
    mask = np.array([[True, True, False], [False, True, True]])
    tokens, real = jax.jit(lambda *inputs: tower.apply(*inputs, method="tokens"))(variables, X, mask)
    held = twin.in_float64(variables["params"])
    tokens = np.asarray(tokens).reshape(2, 3, tower.each, -1)
    for row in range(2):
        for place in np.flatnonzero(mask[row]):
            expected = clip_by_hand(X[row, place], held, tower)
            np.testing.assert_allclose(tokens[row, place], expected, atol=1e-5, rtol=1e-5)
    assert np.asarray(real).sum() == mask.sum() * tower.each


def test_the_papers_clip_has_sixty_frames_and_six_tokens_and_silence_is_zero() -> None:
    mels = LogMel(22_050, 1_536, 588, 1_536, 64, 20.0, None, "slaney", 0.1, math.log(0.1))
    assert mels.frames(35_280) == 60
    assert audio(spectrogram=mels, samples=35_280, ratio=5).each == 1 + 6
    assert not np.asarray(mels(jnp.zeros((1, 35_280), jnp.int16))).any()
    assert mels.filters().shape == (769, 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 3}, "samples=1600 are 20 frames, which don't divide into patch=3"),
        ({"ratio": 4}, "samples=1600, ratio=4: 10 patches in time aren't pooled by 4"),
        ({"samples": 800}, "clips of 1600 samples, and samples=800: set it to theirs"),
    ],
)
def test_sizes_that_do_not_fit_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        audio(**fields).init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Incoming((SAMPLES,), "int16"), r"reads clips int16\[K, T\].*end the chain in EachClip\(steps, count\)"),
        (Incoming((3, SAMPLES), "float32"), r"reads clips int16\[K, T\], and data.transforms gives float32\[3, 1600\]"),
        (Incoming((3, 800), "int16"), "clips of 800 samples, and towers.audio.samples=1600"),
        (Incoming((3, SAMPLES), "int16", rate=16_000), "rate=16000 Hz, but towers.audio.spectrogram.rate=8000"),
    ],
)
def test_inputs_that_do_not_fit_are_named(given: Incoming, message: str) -> None:
    audio().check_input("towers.audio", Incoming((3, SAMPLES), "int16", rate=8_000))
    with pytest.raises(UserError, match=message):
        audio().check_input("towers.audio", given)
