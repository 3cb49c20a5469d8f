"""The audio tower: a transformer over patches of a log-mel spectrogram (Gong et al. 2021, arXiv:2104.01778)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int16

from mmjax.models.spectrogram import LogMel
from mmjax.models.tower import PatchTower


class AudioTransformer(PatchTower, kw_only=True):
    """Waveforms int16 `[B, T]` -> log-mel frames -> patches of frames x bands -> transformer.

    A frame is real if it starts at a real sample, a patch if one of its frames is. Samples beyond the mask are silence.

    Attributes:
        spectrogram: the front end.
        patch: (frames, bands) of a patch; with all bands it is a strip, and the grid has the axis of time alone.
        samples: the longest waveform; learned positions hold for it, and shorter ones use the first of them.
    """

    spectrogram: LogMel
    patch: tuple[int, int]
    samples: int

    def _grid(self, samples: int) -> tuple[int, ...]:
        frames, bands = self.patch
        mels = self.spectrogram.mels
        if mels % bands:
            raise ValueError(f"patch={self.patch}: {bands} bands don't divide the {mels} mels of the spectrogram")
        times = -(-self.spectrogram.frames(samples) // frames)
        return (times,) if bands == mels else (times, mels // bands)

    def capacity(self) -> tuple[int, ...]:
        return self._grid(self.samples)

    def grid(self, x: Int16[Array, "b t"]) -> tuple[int, ...]:
        """Patches along time, and along frequency unless a patch has all bands."""
        return self._grid(x.shape[1])

    def patches(
        self, x: Int16[Array, "b t"], mask: Bool[Array, "b t"] | None = None
    ) -> tuple[Float[Array, "b n p"], Bool[Array, "b n"]]:
        """The normalised log-mel of each patch, float32 `[B, N, frames * bands]`, time first; and which are real."""
        mask = jnp.ones(x.shape, bool) if mask is None else mask
        frames, bands = self.patch
        times, *rest = self.grid(x)
        columns = rest[0] if rest else 1
        mels = self.spectrogram(jnp.where(mask, x, 0), frames=times * frames)
        cut = mels.reshape(len(x), times, frames, columns, bands).transpose(0, 1, 3, 2, 4)
        real = self.spectrogram.frame_mask(mask)
        real = jnp.pad(real, ((0, 0), (0, times * frames - real.shape[1]))).reshape(len(x), times, frames).any(axis=2)
        return cut.reshape(len(x), times * columns, frames * bands), jnp.repeat(real, columns, axis=1)
