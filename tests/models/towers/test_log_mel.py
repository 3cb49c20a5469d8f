import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.log_mel import LogMel, from_mel, mel_filters, to_mel
from tests.models.golden.fields import FILE, LOG_MEL


def reference(audio, front):
    """The same by loops, in float64, with a Fourier transform written out."""
    angle = 2 * np.pi * np.outer(np.arange(front.fft // 2 + 1), np.arange(front.window)) / front.fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front.window) / front.window)
    audio = np.concatenate([np.asarray(audio, np.float64) / 32768, np.zeros(front.window)])
    top = front.fmax or front.rate / 2
    low, high = (2595 * np.log10(1 + f / 700) for f in (front.fmin, top))
    corners = [700 * (10 ** ((low + (high - low) * i / (front.mels + 1)) / 2595) - 1) for i in range(front.mels + 2)]
    rows = []
    for start in range(0, len(audio) - front.window, front.hop):
        frame = audio[start : start + front.window] * window
        power = (np.cos(angle) @ frame) ** 2 + (np.sin(angle) @ frame) ** 2
        bands = []
        for a, b, c in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * front.rate / front.fft
                if a < f <= b:
                    total += p * (f - a) / (b - a)
                elif b < f < c:
                    total += p * (c - f) / (c - b)
            bands.append(total)
        rows.append((np.log(np.array(bands) + front.floor) - front.mean) / front.std)
    return np.stack(rows)


def test_equals_float64_reference():
    front = LogMel(window=200, hop=80, fft=256, mels=12, mean=-4.0, std=3.0, fmax=7000.0)
    audio = (np.random.default_rng(0).normal(size=(2, 1000)) * 5000).astype(np.int16)
    got = jax.jit(front)(audio)
    assert got.shape == (2, 13, 12)
    np.testing.assert_allclose(got, np.stack([reference(row, front) for row in audio]), atol=2e-4)


@pytest.mark.parametrize("name", LOG_MEL)
def test_equals_torchaudio(name):
    golden = np.load(FILE)
    ours = jax.jit(LogMel(**LOG_MEL[name]))(golden["sound"][None])[0]
    np.testing.assert_allclose(ours[: len(golden[name])], golden[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_a_pure_tone_peaks_in_its_band(scale):
    front = LogMel(mels=40, scale=scale)
    centres = from_mel(np.linspace(to_mel(front.fmin, scale), to_mel(8000, scale), 42), scale)[1:-1]
    compiled = jax.jit(front)
    for band in (8, 20, 35):
        tone = 8000 * np.sin(2 * np.pi * centres[band] * np.arange(4000) / 16_000)
        frames = np.asarray(compiled(tone[None].astype(np.int16)))[0, 2:-4]
        assert (np.argmax(frames, axis=-1) == band).all()


def test_scales():
    assert to_mel(1000, "htk") == pytest.approx(1000, abs=0.1)  # what defines the unit
    assert to_mel(1000, "slaney") == pytest.approx(15)
    assert to_mel(6400, "slaney") == pytest.approx(42)
    for scale in ("htk", "slaney"):
        hertz = np.array([0.0, 60.0, 999.0, 1001.0, 7999.0])
        np.testing.assert_allclose(from_mel(to_mel(hertz, scale), scale), hertz, atol=1e-9)


def test_neighbouring_triangles_add_up_to_one_or_have_area_one():
    filters = mel_filters(16_000, 1024, 20, 100.0, 7000.0, "htk")
    bins = np.arange(513) * 16_000 / 1024
    centres = from_mel(np.linspace(to_mel(100, "htk"), to_mel(7000, "htk"), 22), "htk")[1:-1]
    inside = (bins > centres[0]) & (bins < centres[-1])
    np.testing.assert_allclose(filters.sum(axis=1)[inside], 1)
    area = mel_filters(16_000, 8192, 20, 100.0, 7000.0, "slaney").sum(axis=0) * 16_000 / 8192
    np.testing.assert_allclose(area, 1, rtol=1e-2)


def test_silence_is_the_floor():
    front = LogMel(floor=1e-5, mean=1.0, std=2.0)
    np.testing.assert_allclose(jax.jit(front)(np.zeros((1, 800), np.int16)), (np.log(1e-5) - 1) / 2, rtol=1e-6)


def test_a_frame_is_real_if_it_starts_at_a_real_sample():
    front = LogMel(hop=100)
    mask = np.arange(450) < np.array([[0], [1], [100], [101], [450]])
    assert front.frames(450) == 5
    np.testing.assert_array_equal(np.asarray(jax.jit(front.frame_mask)(mask)).sum(axis=1), [0, 1, 1, 2, 5])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mels": 128}, r"mels=128 with fft=512: bands \[.*\] lie between two bins"),
        ({"window": 600}, "window=600 is longer than fft=512"),
        ({"fmax": 9000.0}, r"fmax=9000.0 must be ordered within 0 and rate / 2 = 8000.0"),
        ({"scale": "htc"}, "scale='htc' is not one of htk, slaney; did you mean htk"),
    ],
)
def test_errors_say_what_would_do(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(LogMel(**fields), np.zeros((1, 800), np.int16))
