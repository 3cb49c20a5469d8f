"""Reads a user's sounds: files, and waveforms at any rate."""

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import soundfile
import soxr

from mmjax.data.decoding.loudness import LARGEST, in_scale, to_int16
from mmjax.data.decoding.sounds import lasting, read_sound
from mmjax.data.transforms.input import Input, Read, as_array, file_content, is_number, is_path, shortened, value_kind
from mmjax.data.transforms.spans import heard_of, partly
from mmjax.errors import UserError

MOST_CHANNELS = 8  # of a waveform: tells which of two axes is time
CLIPPED = 0.01  # the share of a sound's samples at full scale from which on clipping is audible
RATES = (100, 10_000_000)  # sample rates in Hz that a waveform may have: beyond, soxr takes all memory, or never ends
SECONDS, RATE = 10, 44_100  # seconds and Hz of a sound to time a chain with


class SoundInput(Input):
    """Reads sounds. Warns once about sounds that are longer than the model hears, and once about clipped ones."""

    one, several, unit, plays, amount = "sound", "sounds", "samples", True, "snr"
    # M4A and others that can't be decoded here too, as of pictures.
    endings = (
        *(".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"),
    )

    def __init__(self, modality: str, chain: Sequence[Any], spec: Any, upright: bool = True):
        super().__init__(modality, chain, spec, upright)
        self._warned_of_clipping = self._warned_of_length = False

    @classmethod
    def played(cls, value: Any, rate: int | None = None) -> tuple[np.ndarray, int]:
        from mmjax.data.transforms.audio import DecodeAudio  # which names this class

        if rate is None and isinstance(value, bytes):
            found = read_sound(value, DecodeAudio.most_samples)
            return to_int16(found.samples), found.rate
        rate = DecodeAudio.rate if rate is None else rate
        return DecodeAudio(rate)(value, None), rate

    @classmethod
    def disturbed(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None,
        amount: float,
        random: np.random.Generator,
        chain: Sequence[Any],
    ) -> np.ndarray:
        """A waveform with white Gaussian noise at a signal-to-noise ratio of `amount` dB, by the mean power of its real
        samples; what is louder than full scale is cut off. Silence stays silent."""
        if not np.isfinite(amount):
            raise UserError(f"a sound's noise at snr={amount} must be a finite number of decibels")
        if values.dtype != np.int16 or values.ndim != 1:
            raise UserError(
                f"sounds are disturbed as waveforms, int16[T], and this model reads {values.dtype}{list(values.shape)}"
            )
        real = np.ones(values.shape, bool) if mask is None else mask
        power = np.mean(np.square(values[real], dtype=np.float64)) if real.any() else 0.0
        noise = random.standard_normal(values.shape) * np.sqrt(power / 10 ** (amount / 10))
        return np.where(real, np.rint(values + noise).clip(-(2**15), LARGEST), values).astype(np.int16)

    @classmethod
    def made_up(cls) -> tuple[bytes, str]:
        """Three tones with a little noise, as a FLAC file."""
        rng = np.random.default_rng(0)
        time_axis = np.arange(SECONDS * RATE) / RATE
        tones = sum(np.sin(2 * np.pi * pitch * time_axis) for pitch in (220, 554, 1_760))
        file = io.BytesIO()
        soundfile.write(file, 0.2 * tones + 0.01 * rng.standard_normal(len(time_axis)), RATE, format="FLAC")
        return file.getvalue(), f"a FLAC of {SECONDS} s at {RATE:,} Hz"

    @classmethod
    def measured(cls, length: int, rate: int | None) -> str:
        return f"{length:,} samples" + (f" ({length / rate:.3g} s)" if rate is not None else "")

    @classmethod
    def lost(cls, length: int, rate: int | None) -> str:
        heard = cls.measured(length, rate)
        return f"than the model hears: {heard}, a random part of each in training, the beginning in evaluation"

    @property
    def takes(self) -> str:
        return "it takes (waveform, sample_rate), a waveform [T] at the model's rate, a file name, or bytes of a file"

    def is_one(self, value: Any) -> bool:
        if not isinstance(value, tuple) or len(value) != 2:
            return False
        if is_number(value[0]) and not is_number(value[1]):
            raise UserError(
                f"{self.modality}=(sample_rate, waveform) is the wrong way round: give (waveform, sample_rate)"
            )
        return is_number(value[1])

    def _arrays(self, value: np.ndarray) -> tuple[Iterable[Any], bool]:
        if value.ndim == 2 and value.shape[1:] != self.spec.shape:
            raise UserError(
                f"{self.modality} is an array {list(value.shape)}: sound of several channels is (waveform, "
                "sample_rate), and several sounds are a list of arrays [T]"
            )
        return super()._arrays(value)

    def read(self, value: Any, where: str) -> Read:
        values, mask = self._heard(value, where)
        if mask is not None and mask.all() and not self._warned_of_length:
            self._warn_if_longer(value, where)
        if values.dtype == np.int16 and not self._warned_of_clipping:
            share = np.mean(np.abs(values[mask if mask is not None else ...].astype(np.int32)) >= LARGEST)
            if share > CLIPPED:
                self._warned_of_clipping = True
                warnings.warn(
                    f"{where}: {share:.0%} of its samples lie at full scale: what is louder was cut off, here (floats "
                    "beyond [-1, 1]) or in the recording; further sounds that are clipped aren't named",
                    stacklevel=2,
                )
        return values, mask

    def _warn_if_longer(self, value: Any, where: str) -> None:
        if is_path(value) or isinstance(value, bytes):
            whole = lasting(value if isinstance(value, bytes) else os.path.expanduser(os.fspath(value)))
        else:
            wave, rate = value if isinstance(value, tuple) else (value, None)
            rate = rate or self.spec.rate
            whole = max(np.shape(wave)) / rate if rate else None
        if said := partly(heard_of(self.spec), whole):
            self._warned_of_length = True
            warnings.warn(
                f"{where}: {said}, what follows is cut off; further sounds that are longer aren't named", stacklevel=2
            )

    def _heard(self, value: Any, where: str) -> Read:
        if is_path(value):
            return self.run(file_content(value, where))
        if isinstance(value, bytes):
            return self.run(value)
        rate = model_rate = self.spec.rate
        if isinstance(value, tuple) and len(value) == 2:
            value, rate = as_array(value[0]), value[1]
            if not is_number(rate) or not RATES[0] <= rate <= RATES[1]:
                raise UserError(
                    f"{where}: the sample rate is {shortened(rate)}; give (waveform, sample_rate), in Hz, from "
                    f"{RATES[0]} to {RATES[1]:,}"
                )
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            raise UserError(
                f"{where} is an array {list(value.shape)}: give several channels as (waveform, sample_rate)"
            )
        if not isinstance(value, np.ndarray):
            raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
        samples = _mono(value, where)
        if not len(samples):
            raise UserError(f"{where} is empty: it has no samples")
        if rate is not None and model_rate is not None and rate != model_rate:
            if samples.dtype == np.int16:  # soxr adds noise to int16, different at each call
                samples = samples / np.float32(2**15)
            samples = to_int16(soxr.resample(samples, rate, model_rate))
        return self.run(samples)


def _mono(value: np.ndarray, where: str) -> np.ndarray:
    """One channel, the mean of all channels, as int16 or float32 with full scale 1.

    Raises BadExample where the numbers have another scale (`loudness.in_scale`).
    """
    if value.ndim not in (1, 2) or (value.ndim == 2 and min(value.shape) > MOST_CHANNELS):
        raise UserError(f"{where} has the shape {list(value.shape)}; a waveform is [T], [T, channels] or [channels, T]")
    if value.dtype.kind not in "iuf":
        raise UserError(f"{where} is an array of {value.dtype}; a waveform holds int16, or floats in [-1, 1]")
    if value.dtype.kind == "u" or (value.dtype.kind == "i" and value.dtype.itemsize not in (2, 4)):
        raise UserError(f"{where} is an array of {value.dtype}; integers are int16 or int32")
    value = in_scale(value)
    if value.dtype != np.int16:
        value = value.astype(np.float32)
    if value.ndim == 2:
        channels = int(np.argmin(value.shape))
        value = value.mean(axis=channels, dtype=np.float32).astype(value.dtype) if value.size else value.reshape(-1)
    return value
