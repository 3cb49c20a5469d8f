"""The recurrent tower of sounds: an LSTM or a GRU over the frames of a log-mel spectrogram."""

from typing import Any, cast

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int16, Key

from mmjax.errors import UserError
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import take_kept
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.recurrent import RecurrentTower


def count_frames(spectrogram: LogMel | KaldiFbank, samples: int) -> int:
    """The number of frames of waveforms of so many samples.

    Raises:
        UserError: there is none.
    """
    found = spectrogram.frames(samples)
    if found < 1:
        raise UserError(
            f"waveforms of {samples} samples hold no frame of spectrogram.window={spectrogram.window} samples: take "
            "longer ones, or a shorter window"
        )
    return found


def real_frames(
    spectrogram: LogMel | KaldiFbank, samples: int, x: Int16[Array, "b t"], mask: Bool[Array, "b t"] | None
) -> tuple[Float[Array, "b f m"], Bool[Array, "b f"]]:
    """The normalised log-mel frames, float32 `[B, F, mels]`, and a mask of the real ones; what `mask` doesn't allow is
    silence.

    Raises:
        UserError: the waveforms are longer than `samples`, or hold no frame.
    """
    if x.shape[1] > samples:
        raise UserError(f"waveforms of {x.shape[1]} samples are longer than samples={samples}: set it to theirs")
    count = count_frames(spectrogram, x.shape[1])
    if mask is None:
        return spectrogram(x, frames=count), jnp.ones((len(x), count), bool)
    return spectrogram(jnp.where(mask, x, 0), frames=count), spectrogram.frame_mask(mask)[:, :count]


class RecurrentAudio(RecurrentTower, kw_only=True):
    """Waveforms int16 `[B, T]` -> log-mel frames -> LSTM or GRU. A tower, see `BareTower`; its fields beside those of
    `RecurrentTower` are these.

    The front end says which frames are real. With `keep` it reads the kept frames alone, in the order in which they are
    given.

    Attributes:
        spectrogram: the front end; its `mean` and `std` should bring the frames near 0 and 1.
        samples: the longest waveform.
    """

    spectrogram: LogMel | KaldiFbank
    samples: int

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts the waveforms that an `AudioTransformer` of this `spectrogram` and `samples` would."""
        AudioTransformer.check_input(cast(Any, self), path, given)

    def grid(self, x: Int16[Array, "b t"]) -> tuple[int, ...]:
        """The number of frames, `(F,)`."""
        return (count_frames(self.spectrogram, x.shape[1]),)

    def patches(
        self, x: Int16[Array, "b t"], mask: Bool[Array, "b t"] | None = None
    ) -> tuple[Float[Array, "b f m"], Bool[Array, "b f"]]:
        """The normalised log-mel frames, float32 `[B, F, mels]`, and a mask of the real ones."""
        return real_frames(self.spectrogram, self.samples, x, mask)

    def tokens(
        self,
        x: Int16[Array, "b t"],
        mask: Bool[Array, "b t"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The state after each frame, and which frames are real.

        Raises:
            UserError: the waveforms are longer than `samples`, or hold no frame.
        """
        frames, real = self.patches(x, mask)
        if keep is not None:
            frames, real = take_kept(frames, keep), (keep >= 0) & take_kept(real, keep)
        return self.states(frames.astype(self.dtype), real, train, keys), real
