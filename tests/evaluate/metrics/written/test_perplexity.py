"""Perplexity and bits by hand."""

import math

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.perplexity import language_scores


def test_a_uniform_guess_among_eight_tokens_of_two_bytes():
    nats = 10 * math.log(8)
    expected = {"perplexity": 8, "bits_per_token": 3, "bits_per_byte": 1.5}
    assert language_scores(nats, 10, 20) == pytest.approx(expected, rel=1e-12)
    assert set(language_scores(nats, 10)) == {"perplexity", "bits_per_token"}


def test_a_sum_in_fp32_is_divided_in_float64():
    nats = np.float32(1e9)
    assert language_scores(float(nats), 3) == language_scores(nats, 3)  # pyright: ignore[reportArgumentType]
    assert isinstance(language_scores(nats, 3)["bits_per_token"], float)  # pyright: ignore[reportArgumentType]


def test_a_perplexity_beyond_float64_is_infinite():
    assert language_scores(1e6, 10)["perplexity"] == math.inf
    assert language_scores(1e6, 10)["bits_per_token"] == pytest.approx(1e5 / math.log(2))


@pytest.mark.parametrize(("tokens", "text_bytes", "message"), [(0, 1, "tokens=0"), (1, 0, "_bytes=0"), (-1, 1, "-1")])
def test_nothing_to_divide_by(tokens, text_bytes, message):
    with pytest.raises(UserError, match=message):
        language_scores(1.0, tokens, text_bytes)
