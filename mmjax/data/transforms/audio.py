"""Transforms of sounds: from encoded bytes to an int16 waveform of one length, with light augmentations.

Between `DecodeAudio` and `CropOrPad` a sound is int16 `[T]`, mono, at `DecodeAudio`'s rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import sounds
from mmjax.data.decoding.loudness import LARGEST, Waveform, in_scale, to_int16
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.values import Cut, Masked, prefix_mask


@dataclass(frozen=True)
class PickUtterance(Transform):
    """Picks one recording of several: a random one in training, the first in evaluation. A single one is unchanged."""

    random = True
    picks = True

    def __call__(self, value: Any, rng: Rng) -> Any:
        if isinstance(value, bytes | np.ndarray) or not isinstance(value, Sequence):
            return value
        if not len(value):
            raise BadExample("there is no recording", "empty")
        return value[int(rng.integers(len(value))) if rng is not None else 0]

    def spec(self, before: Spec | None) -> None:
        return None

    def by_hand(self, upright: bool) -> None:
        return None


@dataclass(frozen=True)
class DecodeAudio(Transform):
    """Decodes bytes (WAV, FLAC, Ogg, MP3, ...) to int16 `[T]`, the mean of the channels, resampled to `rate` Hz.

    An array is taken as a mono waveform at `rate`. Files and arrays have one rule for their scale (`loudness.py`):
    int16, int32 with full scale 2^31, or floats in [-1, 1], of which a little more is clipped. A file is decoded to its
    end, or counted as bad, also where its header has no length (MP3 without one, streams), or several files are joined.
    One that holds more than `most_samples` (all channels together), or would after resampling, isn't unpacked: silence
    compresses well. Of a video that a window is cut out of (`CutWindow`), the window's sound is decoded alone.
    """

    rate: int = 16_000
    most_samples: int = 100_000_000

    def __call__(self, value: Any, rng: Rng) -> Waveform:
        del rng
        if isinstance(value, Clip):
            return self._part(value)
        if isinstance(value, np.ndarray):
            if value.ndim != 1:
                raise BadExample(
                    f"a waveform is one row of samples [T], not an array of shape {value.shape}", "undecodable"
                )
            return to_int16(in_scale(value))
        if not isinstance(value, bytes | bytearray | memoryview):
            raise BadExample(f"a sound is bytes of a file or an array, not {type(value).__name__}", "undecodable")
        return sounds.waveform(bytes(value), self.rate, self.most_samples)

    def _part(self, clip: Clip) -> Waveform:
        if clip.end is None:
            raise BadExample("a clip without an end has no sound of one length: CutWindow cuts one", "unfit")
        if not clip.sound:
            return sound_between(clip.content, clip.start, clip.end, self.rate, most_samples=self.most_samples)
        content = clip.content if isinstance(clip.content, bytes) else Path(clip.content).read_bytes()
        start, end = (round(time * self.rate) for time in (clip.start, clip.end))
        part = sounds.waveform(content, self.rate, self.most_samples)[start:end]
        return np.pad(part, (0, end - start - len(part)))

    def spec(self, before: Spec | None) -> Spec:
        return Spec((VARIES,), "int16", kind=SoundInput, rate=self.rate)


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
    """Makes the sound louder or softer by up to `decibels`; samples beyond full scale are clipped."""

    random = True

    decibels: float = 6.0

    def __call__(self, value: Waveform, rng: Rng) -> Waveform:
        if rng is None:
            return value
        factor = np.float32(10 ** (rng.uniform(-self.decibels, self.decibels) / 20))
        louder = value * factor
        return np.clip(louder, -LARGEST, LARGEST, out=louder).astype(np.int16)


@dataclass(frozen=True)
class AddNoise(Transform):
    """Adds white noise at a signal-to-noise ratio drawn from `ratio`, in decibels. Silence stays silent."""

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
        return np.clip(wave, -LARGEST, LARGEST, out=wave).astype(np.int16)


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
    """Crops or pads to `samples` int16 samples and their mask: real ones first, then zeros.

    It keeps a random part of a longer sound in training, the start in evaluation (`Cut`).
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
        mask = prefix_mask(self.samples, len(part))
        return Cut(wave, mask, len(value)) if spare > 0 else Masked(wave, mask)

    def spec(self, before: Spec | None) -> Spec:
        rate = None if before is None else before.rate
        return Spec((self.samples,), "int16", masked=True, kind=SoundInput, rate=rate)
