"""The audio tower of MERLOT Reserve: each short clip of a sound by a transformer over its log-mel frames."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.reserve.encoder import centred
from mmjax.models.towers.reserve.parts import PartsTower

SPEED = 1.0  # at which a clip is played, the last channel of each frame: as it was recorded


class ReserveAudio(PartsTower, kw_only=True):
    """Clips int16 `[B, K, T]` -> log-mel frames, and the speed at which they are played, which is 1 -> patches of
    `patch` frames -> transformer -> `ratio` patches pooled to one token (Zellers et al. 2022, arXiv:2201.02639).

    Attributes:
        spectrogram: the front end.
        samples: the length of a clip.
        patch: frames of a patch.
        ratio: patches that are pooled.
    """

    spectrogram: LogMel
    samples: int = 35_280
    patch: int = 2
    ratio: int = 5

    @property
    def each(self) -> int:
        """The number of tokens of a clip: one, and the pooled ones."""
        return 1 + self._count() // self.ratio

    def _count(self) -> int:
        return self.spectrogram.frames(self.samples) // self.patch

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts clips of `samples`."""
        if len(given.shape) != 2 or given.dtype != "int16":
            raise UserError(
                f"{path} reads clips int16[K, T], and data.transforms gives {given}: end the chain in "
                "EachClip(steps, count), or take another tower"
            )
        if given.shape[1] != self.samples:
            raise UserError(
                f"data.transforms gives clips of {given.shape[1]} samples, and {path}.samples={self.samples}: set both "
                "to the same"
            )
        if given.rate is not None and given.rate != self.spectrogram.rate:
            raise UserError(
                f"data.transforms gives sounds at rate={given.rate} Hz, but {path}.spectrogram.rate="
                f"{self.spectrogram.rate}: set both to the same"
            )

    def grid(self, x: Int16[Array, "b k t"]) -> tuple[int, ...]:
        """The number of clips, and that of each one's tokens."""
        return x.shape[1], self.each

    def setup(self) -> None:
        frames = self.spectrogram.frames(self.samples)
        if frames % self.patch:
            raise UserError(f"samples={self.samples} are {frames} frames, which don't divide into patch={self.patch}")
        self._check(self._count(), self.ratio, "in time", f"samples={self.samples}, ratio={self.ratio}")
        super().setup()

    def _values(self) -> int:
        return self.patch * (self.spectrogram.mels + 1)

    def _patches(self, x: Array) -> Float[Array, "b n p"]:
        if x.shape[1] != self.samples:
            raise UserError(f"clips of {x.shape[1]} samples, and samples={self.samples}: set it to theirs")
        mels = self.spectrogram(x)
        frames = jnp.pad(mels, ((0, 0), (0, 0), (0, 1)), constant_values=SPEED)
        return frames.reshape(len(x), self._count(), -1)

    def _places(self) -> Float[np.ndarray, "n a"]:
        return centred(self._count())[:, None] / self._count()

    def _groups(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b m r d"]:
        return tokens.reshape(len(tokens), -1, self.ratio, tokens.shape[-1])
