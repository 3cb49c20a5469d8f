"""The audio tower: a transformer over patches of a log-mel spectrogram (Gong et al. 2021, arXiv:2104.01778)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import PatchTower
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel


class AudioTransformer(PatchTower, kw_only=True):
    """Waveforms int16 `[B, T]` -> log-mel frames -> patches of frames x bands -> transformer.

    The front end says which frames are real; a patch is if one of its frames is, or,
    with a `stride`, if all are. Samples beyond the mask are silence.

    Attributes:
        spectrogram: the front end.
        patch: (frames, bands) of a patch; with all bands it is a strip, and the grid has the axis of time alone.
        stride: (frames, bands) from one patch to the next, for patches that overlap (AST: 16 x 16 by 10 x 10); frames
            and bands at the end that make no whole patch are left out. None: they stand side by side, and the last is
            filled with silence.
        attend_padding: whether padding counts as sound: frames of the front end's `silence`, up to `samples` (AST).
        samples: the longest waveform; learned positions hold for it, and shorter ones use the first of them.
    """

    spectrogram: LogMel | KaldiFbank
    patch: tuple[int, int]
    samples: int
    stride: tuple[int, int] | None = None
    attend_padding: bool = False

    def check_input(self, path: str, given: Incoming) -> None:
        if len(given.shape) != 1 or given.dtype != "int16":
            raise UserError(
                f"{path} reads waveforms int16[T], and data.transforms gives {given}: end the chain in "
                "CropOrPad(samples), or take another tower"
            )
        (samples,) = given.shape
        if samples > self.samples:
            raise UserError(
                f"data.transforms gives sounds of {samples} samples, longer than the {self.samples} of "
                f"{path}.samples: set {path}.samples={samples}, or the chain's samples to {self.samples}"
            )
        if given.rate is not None and given.rate != self.spectrogram.rate:
            raise UserError(
                f"data.transforms gives sounds at rate={given.rate} Hz, but {path}.spectrogram.rate="
                f"{self.spectrogram.rate}: set both to the same"
            )

    def _grid(self, samples: int) -> tuple[int, ...]:
        frames, bands = self.patch
        mels = self.spectrogram.mels
        if self.stride is not None:
            found = self.spectrogram.frames(samples)
            if found < frames or mels < bands:
                raise UserError(
                    f"patch={self.patch}: {found} frames (of {samples} samples) and {mels} mels don't hold one"
                )
            times, columns = 1 + (found - frames) // self.stride[0], 1 + (mels - bands) // self.stride[1]
            return (times,) if bands == mels else (times, columns)
        if mels % bands:
            raise UserError(f"patch={self.patch}: {bands} bands don't divide the {mels} mels of the spectrogram")
        times = -(-self.spectrogram.frames(samples) // frames)
        return (times,) if bands == mels else (times, mels // bands)

    def capacity(self) -> tuple[int, ...]:
        return self._grid(self.samples)

    def grid(self, x: Int16[Array, "b t"]) -> tuple[int, ...]:
        """Patches along time, and along frequency unless a patch has all bands."""
        return self._grid(self.samples if self.attend_padding else x.shape[1])

    def patches(
        self, x: Int16[Array, "b t"], mask: Bool[Array, "b t"] | None = None
    ) -> tuple[Float[Array, "b n p"], Bool[Array, "b n"]]:
        """The normalised log-mel of each patch, float32 `[B, N, frames * bands]`, time first; and which are real."""
        mask = jnp.ones(x.shape, bool) if mask is None else mask
        grid, (frames, bands) = self.grid(x), self.patch
        times, columns = grid if len(grid) == 2 else (grid[0], 1)
        steps = self.stride or self.patch
        count = (times - 1) * steps[0] + frames
        mels = self.spectrogram(jnp.where(mask, x, 0), frames=count)
        real = self.spectrogram.frame_mask(mask)[:, :count]
        real = jnp.pad(real, ((0, 0), (0, count - real.shape[1])))
        if self.attend_padding:
            mels, real = jnp.where(real[..., None], mels, self.spectrogram.silence), jnp.ones_like(real)
        if self.stride is None:
            cut = mels.reshape(len(x), times, frames, columns, bands)
            real = real.reshape(len(x), times, frames).any(axis=2)
        else:
            rows, cells = (
                s * np.arange(n)[:, None] + np.arange(p)
                for s, n, p in zip(steps, (times, columns), self.patch, strict=True)
            )
            cut, real = mels[:, rows][..., cells], real[:, rows].all(axis=2)
        cut = cut.transpose(0, 1, 3, 2, 4)
        return cut.reshape(len(x), times * columns, frames * bands), jnp.repeat(real, columns, axis=1)
