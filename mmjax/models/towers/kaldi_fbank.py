"""Kaldi's log-mel filterbank (Povey et al. 2011): int16 waveform to normalised log-mel frames, on the device.

What AST (arXiv:2104.01778) and AudioMAE (arXiv:2207.06405) hear, by way of torchaudio. It differs from `LogMel` in that
each frame loses its mean and is pre-emphasised, triangles are straight in mel, and a frame lies within the waveform.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16

from mmjax.errors import UserError, not_among
from mmjax.models.towers.log_mel import INT16

EPSILON = float(np.finfo(np.float32).eps)  # the floor of a band's energy
POVEY = 0.85  # the power of the Hann window that makes Povey's


@dataclasses.dataclass(frozen=True)
class KaldiFbank:
    """Frames, mean removed, pre-emphasis, window, power spectrum, mel filterbank, log, fixed normalisation.

    Attributes:
        rate: samples per second.
        window: samples of a frame.
        hop: samples from one frame's start to the next's.
        fft: samples of the Fourier transform; a frame is padded to it.
        mels: number of mel bands. One that falls between two bins of the transform always has the floor's energy.
        fmin, fmax: lowest and highest frequency in Hz; fmax None means rate / 2.
        shape: of the window, `hann` (AST) or `povey` (Kaldi's own default), both symmetric.
        emphasis: the part of the sample before that is subtracted from each.
        full_scale: what a full sample counts as: 1 (AST, AudioMAE), or 32768, as Kaldi reads files.
        mean, std: subtracted from the log, and divided by. AST divides by twice the standard deviation.
    """

    rate: int = 16_000
    window: int = 400
    hop: int = 160
    fft: int = 512
    mels: int = 128
    fmin: float = 20.0
    fmax: float | None = None
    shape: Literal["hann", "povey"] = "hann"
    emphasis: float = 0.97
    full_scale: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def frames(self, samples: int) -> int:
        """The number of whole frames within `samples`."""
        return max(0, 1 + (samples - self.window) // self.hop)

    def samples(self, frames: int) -> int:
        """The fewest samples that hold so many frames."""
        return (frames - 1) * self.hop + self.window

    def frame_mask(self, mask: Bool[Array, "b t"]) -> Bool[Array, "b f"]:
        """A mask of the frames with only real samples (real ones come first)."""
        return mask[:, self.window - 1 :: self.hop]

    @property
    def silence(self) -> float:
        """The value of frames beyond the end where padding is heard: a log of 0, as in AST."""
        return -self.mean / self.std

    def __call__(self, audio: Int16[Array, "b t"], frames: int | None = None) -> Float[Array, "b f m"]:
        """Normalised log-mel, float32 `[B, frames, mels]`: frame i starts at sample i * hop, silence follows the end.

        Args:
            audio: the waveform.
            frames: how many frames to make; None means those that lie within the waveform.

        Raises:
            UserError: the window is longer than the transform, or of another shape.
        """
        if self.window > self.fft:
            raise UserError(f"window={self.window} is longer than fft={self.fft}")
        count = self.frames(audio.shape[1]) if frames is None else frames
        audio = jnp.pad(audio, ((0, 0), (0, max(0, self.samples(count) - audio.shape[1]))))
        start = self.hop * np.arange(count)[:, None] + np.arange(self.window)
        framed = audio[:, start].astype(jnp.float32) * jnp.float32(self.full_scale / INT16)
        framed = framed - framed.mean(axis=-1, keepdims=True)
        before = jnp.concatenate([framed[..., :1], framed[..., :-1]], axis=-1)  # the first sample stands before itself
        framed = (framed - self.emphasis * before) * jnp.asarray(self.weights(), jnp.float32)
        spectrum = jnp.fft.rfft(framed, n=self.fft)
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        bands = jnp.maximum(power @ jnp.asarray(self.filters(), jnp.float32), EPSILON)
        return (jnp.log(bands) - self.mean) / self.std

    def weights(self) -> Float[np.ndarray, "n"]:
        """The window, float64."""
        hann = np.sin(np.pi * np.arange(self.window) / (self.window - 1)) ** 2
        if self.shape not in ("hann", "povey"):
            raise UserError(not_among("shape", self.shape, ("hann", "povey")))
        return hann if self.shape == "hann" else hann**POVEY

    def filters(self) -> Float[np.ndarray, "k m"]:
        """The mel filterbank, float64 `[fft / 2 + 1, mels]`: triangles of height 1, straight in mel.

        Raises:
            UserError: the frequencies are out of order.
        """
        top = self.rate / 2 if self.fmax is None else self.fmax
        if not 0 <= self.fmin < top <= self.rate / 2:
            raise UserError(f"fmin={self.fmin}, fmax={top} must be ordered within 0 and rate / 2 = {self.rate / 2}")
        bins = mel(np.arange(self.fft // 2 + 1) * (self.rate / self.fft))[:, None]
        corners = np.linspace(mel(self.fmin), mel(top), self.mels + 2)
        low, centre, high = corners[:-2], corners[1:-1], corners[2:]
        return np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """Hz to Kaldi's mel, HTK's by the natural logarithm."""
    return 1127 * np.log(1 + np.asarray(hertz, np.float64) / 700)
