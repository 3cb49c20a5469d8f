"""Transforms of sounds: from encoded bytes to an int16 waveform of one length, with light augmentations.

Between `DecodeAudio` and `CropOrPad` a sound is int16 `[T]`, mono, at `DecodeAudio`'s rate.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Int16

from mmjax.data.transforms import BadExample, Masked, Rng, Spec, Transform, prefix_mask

Waveform = Int16[np.ndarray, " samples"]

_LARGEST = 32767
# libsndfile gives these as int16 unchanged; what is stored in other ways (floats, Vorbis, 24 bit) is read as float32 in
# [-1, 1] and scaled here, since libsndfile doesn't scale floats to integers by itself.
_INT16_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8")


@dataclass(frozen=True)
class PickUtterance(Transform):
    """One recording of several: a random one in training, the first in evaluation. A single one is itself."""

    random = True

    def __call__(self, value: Any, rng: Rng) -> Any:
        if isinstance(value, bytes | np.ndarray) or not isinstance(value, Sequence):
            return value
        if not len(value):
            raise BadExample("there is no recording", "empty")
        return value[int(rng.integers(len(value))) if rng is not None else 0]

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class DecodeAudio(Transform):
    """Encoded bytes (WAV, FLAC, Ogg, MP3, ...) -> int16 `[T]`, the channels' mean, resampled to `rate` Hz.

    An array is taken as a mono waveform at `rate`: int16, or floats in [-1, 1]. A file that holds more than
    `most_samples` (all channels together), or would once it is resampled, isn't unpacked: silence compresses well.
    """

    rate: int = 16_000
    most_samples: int = 100_000_000

    def __call__(self, value: bytes | np.ndarray, rng: Rng) -> Waveform:
        del rng
        if isinstance(value, np.ndarray):
            if value.ndim != 1:
                raise BadExample(
                    f"a waveform is one row of samples [T], not an array of shape {value.shape}", "undecodable"
                )
            return value if value.dtype == np.int16 else _int16(value)
        try:
            with soundfile.SoundFile(_Stream(value)) as sound:
                samples = self._samples(sound)
            return samples if samples.dtype == np.int16 else _int16(samples)
        except BadExample:
            raise
        except Exception as error:  # libsndfile's, soundfile's and soxr's, and what broken headers do to numpy
            raise BadExample(f"the sound can't be decoded: {type(error).__name__}: {error}", "undecodable") from error

    def _samples(self, sound: soundfile.SoundFile) -> np.ndarray:
        rate = sound.samplerate
        most = self.most_samples // max(sound.channels, -(-self.rate // rate))  # frames
        if sound.frames > most:
            raise BadExample(
                f"the sound has {sound.frames:,} frames of {sound.channels} channels at {rate} Hz, more than "
                f"most_samples={self.most_samples:,} unpacked and at {self.rate} Hz",
                "too_large",
            )
        # soxr adds noise, another at each call, to what it resamples as int16: the same file would differ each time.
        whole = rate == self.rate and sound.subtype in _INT16_SUBTYPES
        samples = sound.read(dtype="int16" if whole else "float32")
        if samples.ndim == 2:
            samples = samples.mean(axis=1, dtype=np.float32).astype(samples.dtype)
        return soxr.resample(samples, rate, self.rate) if rate != self.rate else samples

    def spec(self, before: Spec | None) -> None:
        return None


class _Stream(io.BytesIO):
    """Of a broken file libsndfile seeks before the start; what its callback raises would only be printed."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


@dataclass(frozen=True)
class RandomSpeed(Transform):
    """Plays the sound at a speed drawn from `range`: tempo and pitch change together (Ko et al. 2015, Interspeech).

    Linear interpolation: for a few per cent of a voice its error is far below the change itself.
    """

    random = True

    range: tuple[float, float] = (0.9, 1.1)

    def __call__(self, value: Waveform, rng: Rng) -> Waveform:
        if rng is None or len(value) < 2:
            return value
        speed = rng.uniform(*self.range)
        count = max(2, int(len(value) / speed))
        places = np.linspace(0, len(value) - 1, count, dtype=np.float32)
        before = np.minimum(places.astype(np.int32), len(value) - 2)
        low = value[before].astype(np.float32)
        return (low + (places - before) * (value[before + 1] - low)).astype(np.int16)


@dataclass(frozen=True)
class RandomGain(Transform):
    """Louder or softer by up to `decibels`; what would clip is clipped."""

    random = True

    decibels: float = 6.0

    def __call__(self, value: Waveform, rng: Rng) -> Waveform:
        if rng is None:
            return value
        factor = np.float32(10 ** (rng.uniform(-self.decibels, self.decibels) / 20))
        louder = value * factor
        return np.clip(louder, -_LARGEST, _LARGEST, out=louder).astype(np.int16)


@dataclass(frozen=True)
class AddNoise(Transform):
    """White noise at a signal-to-noise ratio drawn from `ratio`, in decibels. Silence stays silent."""

    random = True

    ratio: tuple[float, float] = (15.0, 40.0)

    def __call__(self, value: Waveform, rng: Rng) -> Waveform:
        if rng is None or not len(value):
            return value
        wave = value.astype(np.float32)
        power = float(np.dot(wave, wave)) / len(wave)
        # Uniform noise on [-a, a] has the power a² / 3, is as white as Gaussian noise and costs a fifth of it.
        amplitude = int(np.sqrt(3 * power / 10 ** (rng.uniform(*self.ratio) / 10)))
        if amplitude == 0:
            return value
        wave += rng.integers(-amplitude, amplitude + 1, len(value), dtype=np.int32)
        return np.clip(wave, -_LARGEST, _LARGEST, out=wave).astype(np.int16)


@dataclass(frozen=True)
class RandomShift(Transform):
    """Puts up to `samples` of silence before the sound."""

    random = True

    samples: int

    def __call__(self, value: Waveform, rng: Rng) -> Waveform:
        if rng is None:
            return value
        return np.concatenate([np.zeros(int(rng.integers(self.samples + 1)), np.int16), value])


@dataclass(frozen=True)
class CropOrPad(Transform):
    """To `samples` int16 samples and their mask: real ones first, then zeros.

    Of a longer sound it keeps a random part in training, the start in evaluation.
    """

    random = True

    samples: int

    def __call__(self, value: Waveform, rng: Rng) -> Masked:
        spare = len(value) - self.samples
        if not len(value):
            raise BadExample("the sound is empty", "empty")
        start = int(rng.integers(spare + 1)) if rng is not None and spare > 0 else 0
        part = value[start : start + self.samples]
        wave = np.zeros(self.samples, np.int16)
        wave[: len(part)] = part
        return Masked(wave, prefix_mask(self.samples, len(part)))

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.samples,), "int16", masked=True)


def _int16(samples: np.ndarray) -> Waveform:
    if not np.issubdtype(samples.dtype, np.floating):
        raise BadExample(f"a waveform holds int16 or floats in [-1, 1], not {samples.dtype}", "undecodable")
    if not np.isfinite(samples).all():
        raise BadExample("the sound holds samples that aren't finite", "not_finite")
    return np.rint(np.clip(samples, -1, 1) * _LARGEST).astype(np.int16)
