"""The log-mel front end: int16 waveform to normalised log-mel frames, on the device."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16

from mmjax.errors import UserError, not_among

INT16 = 32_768.0  # full scale


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Frames, Hann window, power spectrum, mel filterbank, log, fixed normalisation.

    Attributes:
        rate: samples per second.
        window: samples of a frame.
        hop: samples from one frame's start to the next's.
        fft: samples of the Fourier transform; a frame is padded to it.
        mels: number of mel bands.
        fmin, fmax: lowest and highest frequency in Hz; fmax None means rate / 2.
        scale: `htk` (2595 log10(1 + f / 700), triangles of height 1) or `slaney` (linear below 1 kHz, of area 1).
        floor: added to the bands' power before the log; full scale is 1.
        mean, std: subtracted from the log, and divided by: fixed, so that padding changes nothing.
    """

    rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 512
    mels: int = 64
    fmin: float = 50.0
    fmax: float | None = None
    scale: Literal["htk", "slaney"] = "htk"
    floor: float = 1e-6
    mean: float = 0.0
    std: float = 1.0

    def frames(self, samples: int) -> int:
        """The number of frames that start within `samples`."""
        return -(-samples // self.hop)

    def frame_mask(self, mask: Bool[Array, "b t"]) -> Bool[Array, "b f"]:
        """A mask of the frames that start at a real sample."""
        return mask[:, :: self.hop]

    @property
    def silence(self) -> float:
        """The value of a frame without sound."""
        return (math.log(self.floor) - self.mean) / self.std

    def __call__(self, audio: Int16[Array, "b t"], frames: int | None = None) -> Float[Array, "b f m"]:
        """Normalised log-mel, float32 `[B, frames, mels]`: frame i starts at sample i * hop, silence follows the end.

        Args:
            audio: the waveform.
            frames: how many frames to make; None means those that start within the waveform.

        Raises:
            UserError: the window is longer than the transform.
        """
        if self.window > self.fft:
            raise UserError(f"window={self.window} is longer than fft={self.fft}")
        count = self.frames(audio.shape[1]) if frames is None else frames
        needed = (count - 1) * self.hop + self.window
        audio = jnp.pad(audio, ((0, 0), (0, max(0, needed - audio.shape[1]))))
        start = self.hop * np.arange(count)[:, None] + np.arange(self.window)
        framed = audio[:, start] * jnp.asarray(hann(self.window) / INT16, jnp.float32)
        spectrum = jnp.fft.rfft(framed, n=self.fft)
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        bands = power @ jnp.asarray(self.filters(), jnp.float32)
        return (jnp.log(bands + self.floor) - self.mean) / self.std

    def filters(self) -> Float[np.ndarray, "k m"]:
        """The mel filterbank, float64 `[fft / 2 + 1, mels]`."""
        top = self.rate / 2 if self.fmax is None else self.fmax
        return mel_filters(self.rate, self.fft, self.mels, self.fmin, top, self.scale)


def hann(size: int) -> Float[np.ndarray, "n"]:
    """The periodic Hann window: sin^2(pi n / size)."""
    return np.sin(np.pi * np.arange(size) / size) ** 2


def to_mel(hertz: np.ndarray | float, scale: str) -> np.ndarray:
    """Hz to mel, by HTK's formula or Slaney's (Auditory Toolbox, 1998)."""
    hertz = np.asarray(hertz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    if scale == "slaney":
        return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))
    raise UserError(not_among("scale", scale, ("htk", "slaney")))


def from_mel(mel: np.ndarray | float, scale: str) -> np.ndarray:
    """The inverse of `to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    if scale == "slaney":
        return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))
    raise UserError(not_among("scale", scale, ("htk", "slaney")))


def mel_filters(
    rate: int, fft: int, mels: int, fmin: float, fmax: float, scale: Literal["htk", "slaney"]
) -> Float[np.ndarray, "k m"]:
    """Triangles over the transform's bins, float64 `[fft / 2 + 1, mels]`, their corners evenly spaced in mel.

    Raises:
        UserError: the frequencies are out of order, or a triangle falls between two bins and would hear nothing.
    """
    if not 0 <= fmin < fmax <= rate / 2:
        raise UserError(f"fmin={fmin}, fmax={fmax} must be ordered within 0 and rate / 2 = {rate / 2}")
    bins = np.arange(fft // 2 + 1) * (rate / fft)
    corners = from_mel(np.linspace(to_mel(fmin, scale), to_mel(fmax, scale), mels + 2), scale)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    filters = np.maximum(0, np.minimum(rising, falling))
    if not filters.any(axis=0).all():
        empty = np.flatnonzero(~filters.any(axis=0)).tolist()
        raise UserError(
            f"mels={mels} with fft={fft}: bands {empty} lie between two bins; take fewer bands or a larger fft"
        )
    return filters * (2 / (high - low)) if scale == "slaney" else filters
