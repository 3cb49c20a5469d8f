"""Convolutional towers: stages of convolutions that each end in a pooling by 2, over pictures or log-mel spectrograms.

LeNet (LeCun et al. 1998) has one convolution to a stage, VGG (Simonyan & Zisserman 2014, arXiv:1409.1556) several of
3 x 3. No normalisation is over the batch, so that an example's embedding doesn't depend on the others.
"""

from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int16, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.activations import ACTIVATIONS
from mmjax.models.layers.parameters import HIDDEN, DtypeName, constrain, dense
from mmjax.models.layers.pooling import POOLINGS
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.bare import BareTower, Incoming
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.recurrent_audio import count_frames, real_frames
from mmjax.models.towers.vit import Pictures, check_pictures, normalised

StageActivationName = Literal["relu", "gelu", "gelu_tanh", "quick_gelu"]
CellPoolingName = Literal["mean", "max"]

NORM_EPS = 1e-5  # of GroupNorm, as PyTorch has it


def _masked(x: Float[Array, "b h w c"], real: Bool[Array, "b h"] | None, other: float = 0.0) -> Array:
    """`x`, with `other` in the rows that aren't real."""
    return x if real is None else jnp.where(real[:, :, None, None], x, jnp.asarray(other, x.dtype))


def _halved(
    x: Float[Array, "b h w c"], real: Bool[Array, "b h"] | None, halving: CellPoolingName
) -> tuple[Float[Array, "b _h _w c"], Bool[Array, "b _h"] | None]:
    """The largest, or the mean, of the real ones of every 2 x 2 cells; at the end of an odd side, of what there is.

    `x` is zero where it isn't real, and so is the result; a row of the result is real if one of its two is.
    """
    window: Any = {"window_shape": (2, 2), "strides": (2, 2), "padding": "SAME"}
    if halving == "max":
        pooled = nn.max_pool(_masked(x, real, float(jnp.finfo(x.dtype).min)), **window)
    else:
        pooled = nn.avg_pool(x, **window, count_include_pad=False).astype(x.dtype)  # which divides in float32
    if real is None:
        return pooled, None
    rows: Any = {"window_shape": (2,), "strides": (2,), "padding": "SAME", "count_include_pad": False}
    share = nn.avg_pool(real.astype(x.dtype)[..., None], **rows).astype(x.dtype)  # of the two rows, 0, 1/2 or 1
    if halving == "mean":
        pooled = pooled / jnp.maximum(share, 0.5)[..., None]
    after = share[..., 0] > 0
    return _masked(pooled, after), after


class _Stages(nn.Module):
    """Pictures `[b h w i]`, of whose rows some may not be real -> `[b h/2^s w/2^s c]`, and its real rows."""

    channels: tuple[int, ...]
    kernel: int
    convolutions: int
    activation: StageActivationName
    groups: int | None
    halving: CellPoolingName
    dtype: DtypeName

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], real: Bool[Array, "b h"] | None
    ) -> tuple[Float[Array, "b _h _w c"], Bool[Array, "b _h"] | None]:
        activation = nn.relu if self.activation == "relu" else ACTIVATIONS[self.activation]
        for stage, features in enumerate(self.channels):
            for place in range(self.convolutions):
                x = self._convolution(features, f"stage{stage}_{place}")(x)
                if self.groups is not None:
                    x = self._normalised(x, real, f"stage{stage}_{place}_norm")
                # Beyond its end an example is zeros to every convolution, as it would be without padding.
                x = _masked(activation(x), real)
            x, real = _halved(x, real, self.halving)
        return x, real

    def _convolution(self, features: int, name: str) -> nn.Conv:
        # He et al. 2015 (arXiv:1502.01852, eq. 10): activations keep their size from layer to layer.
        init = nn.with_logical_partitioning(nn.initializers.he_normal(), (None, None, None, "embed"))
        return nn.Conv(
            features,
            (self.kernel, self.kernel),
            padding=self.kernel // 2,
            dtype=jnp.dtype(self.dtype),
            kernel_init=init,
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
            name=name,
        )

    def _normalised(self, x: Float[Array, "b h w c"], real: Bool[Array, "b h"] | None, name: str) -> Array:
        norm = nn.GroupNorm(
            self.groups,
            epsilon=NORM_EPS,
            use_fast_variance=False,  # the mean of squares less the square of the mean loses digits
            dtype=jnp.dtype(self.dtype),
            scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
            name=name,
        )
        if real is None:
            return norm(x)
        counted = real | ~real.any(axis=1, keepdims=True)  # of a row of nothing all: a mean over none would be NaN
        return norm(x, mask=jnp.broadcast_to(counted[:, :, None, None], x.shape))


class ConvolutionalTower(BareTower, kw_only=True):
    """The stages and the pooling of a convolutional tower. A subclass gives `cells` its pictures.

    Attributes:
        channels: of the convolutions of each stage. Their number says how often both sides are halved, rounded up.
        kernel: side of the convolutions, odd.
        convolutions: number of them in a stage.
        activation: after each: `relu`, `gelu` (erf), `gelu_tanh` or `quick_gelu`.
        groups: of channels, for a GroupNorm (Wu & He 2018, arXiv:1803.08494) before each activation; it divides all
            `channels`. None: there is no normalisation.
        halving: what of 2 x 2 cells a stage ends in: `max` (VGG) or `mean` (LeNet).
        pooling: of the last stage's cells: `mean` or `max`.
        embed_dim: size E of the embedding; None leaves the pooled cell as it is (E = the last of `channels`).
        dtype: of the computation; parameters are float32.
    """

    channels: tuple[int, ...]
    kernel: int = 3
    convolutions: int = 1
    activation: StageActivationName = "relu"
    groups: int | None = None
    halving: CellPoolingName = "max"
    pooling: CellPoolingName = "mean"
    embed_dim: int | None = None
    dtype: DtypeName = "float32"

    @property
    def embedding_size(self) -> int:
        """The size of the projection, or the last stage's channels where there is none."""
        return self.channels[-1] if self.embed_dim is None else self.embed_dim

    def setup(self) -> None:
        names = {"activation": StageActivationName, "halving": CellPoolingName, "pooling": CellPoolingName}
        for name, allowed in names.items():
            if getattr(self, name) not in get_args(allowed):
                raise UserError(not_among(name, getattr(self, name), get_args(allowed)))
        if not self.channels or min(self.channels) < 1 or self.convolutions < 1:
            raise UserError(
                f"channels={self.channels} and convolutions={self.convolutions}: there must be a stage, and in each at "
                "least one convolution with one channel"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"kernel={self.kernel} has no middle: take an odd one, {max(1, self.kernel + 1)} say")
        if self.groups is not None and (self.groups < 1 or any(c % self.groups for c in self.channels)):
            fits = [g for g in range(1, min(self.channels) + 1) if not any(c % g for c in self.channels)]
            raise UserError(f"groups={self.groups} does not divide channels={self.channels}; these do: {fits}")
        self.stages = _Stages(
            tuple(self.channels),
            self.kernel,
            self.convolutions,
            self.activation,
            self.groups,
            self.halving,
            self.dtype,
        )
        if self.embed_dim is not None:
            init = nn.initializers.normal(self.channels[-1] ** -0.5)
            self.projection = dense(self.embed_dim, ("embed", "joint"), init, dtype=self.dtype, bias=False)

    def halvings(self, *sides: int) -> tuple[int, ...]:
        """The sides of the last stage's cells, of pictures with these."""
        return tuple(-(-side // 2 ** len(self.channels)) for side in sides)

    def cells(
        self, x: Float[Array, "b h w i"], real: Bool[Array, "b h"] | None = None
    ) -> tuple[Float[Array, "b n c"], Bool[Array, "b n"]]:
        """The last stage's cells, row by row, in `dtype`, and which are real.

        real: which rows of each picture are; what stands in the others changes nothing. None: all are.
        """
        x = constrain(_masked(x.astype(self.dtype), real), "batch", None, None, None)
        found, rows = self.stages(x, real)
        batch, height, width, _ = found.shape
        rows = jnp.ones((batch, height), bool) if rows is None else rows
        return constrain(found.reshape(batch, height * width, -1), *HIDDEN), jnp.repeat(rows, width, axis=1)

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        pooled = POOLINGS[self.pooling](tokens, token_mask)
        if self.embed_dim is not None:
            pooled = self.projection(pooled)
        return pooled.astype(jnp.float32)


class Convolutional(ConvolutionalTower, kw_only=True):
    """Pictures uint8 `[B, H, W, 3]` of any size -> stages of convolutions. Float pictures are taken as normalised. A
    tower, see `BareTower`; its fields beside those of `ConvolutionalTower` are these.

    Attributes:
        mean, std: of the channels, for values in [0, 1]; the defaults bring pixels to [-1, 1].
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts pictures."""
        check_pictures(path, self, given)

    def grid(self, x: Pictures) -> tuple[int, ...]:
        """Rows and columns of tokens."""
        return self.halvings(*x.shape[1:3])

    def tokens(
        self,
        x: Pictures,
        mask: None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The last stage's cells, row by row; all are real.

        Raises:
            UserError: some are to be kept, of a picture whose cells overlap.
        """
        del mask, train, keys  # nothing is dropped out
        if keep is not None:
            self.patches(x)
        return self.cells(normalised(x, self.mean, self.std))


class ConvolutionalAudio(ConvolutionalTower, kw_only=True):
    """Waveforms int16 `[B, T]` -> log-mel frames, a picture of one channel -> stages of convolutions. A tower, see
    `BareTower`; its fields beside those of `ConvolutionalTower` are these.

    The front end says which frames are real. A cell is if one of its frames is; to a convolution, a picture ends with
    its last real cell, so that padding changes nothing.

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
        """Cells along time, and along frequency."""
        return self.halvings(count_frames(self.spectrogram, x.shape[1]), self.spectrogram.mels)

    def tokens(
        self,
        x: Int16[Array, "b t"],
        mask: Bool[Array, "b t"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The last stage's cells, time first, and which are real.

        Raises:
            UserError: the waveforms are longer than `samples`, or hold no frame; or some tokens are to be kept.
        """
        del train, keys  # nothing is dropped out
        if keep is not None:
            self.patches(x)
        frames, real = real_frames(self.spectrogram, self.samples, x, mask)
        return self.cells(frames[..., None], None if mask is None else real)
