"""CLIP's image tower of convolutions: a ResNet (He et al. 2015, arXiv:1512.03385) with the changes of Radford et al.
2021 (arXiv:2103.00020, section 2.4).

Three convolutions and an average pool stand where the ResNet has one and a maximum. What strides is an average pool,
never a convolution after the first (Zhang 2019, arXiv:1904.11486). The last pool is attention, its query the mean.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers import pooling as poolings
from mmjax.models.layers.attention import attend
from mmjax.models.layers.parameters import HIDDEN, REMAT_POLICIES, DtypeName, constrain, dense, parameter
from mmjax.models.layers.transformer import HeadsIn
from mmjax.models.towers.bare import BareTower, Incoming
from mmjax.models.towers.vit import Pictures, check_pictures, normalised

EXPANSION = 4  # a block's output has so many times the channels of its 3x3 convolution
STRIDE = 32  # pixels of the picture to a side of the last grid: 2 x 2 in the stem, 2 in each stage but the first
HEAD_DIM = 64  # channels to a head of the attention pooling, as published
STATISTICS = "batch_stats"  # Linen's collection of running means and variances

# PyTorch's initial convolutions, which CLIP keeps: uniform between -1 and 1 over the square root of the fan-in.
CONVOLUTION_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _convolution(features: int, size: int, name: str, *, dtype: DtypeName, stride: int = 1) -> nn.Conv:
    """A convolution without bias, `size` x `size`; its output keeps the grid, or with a stride of 2 half of it."""
    axes = (None, None, None, "embed")
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=jnp.dtype(dtype),
        kernel_init=nn.with_logical_partitioning(CONVOLUTION_INIT, axes),
        name=name,
    )


def _batch_norm(name: str, *, train: bool, dtype: DtypeName, first: float = 1.0) -> nn.BatchNorm:
    """Batch normalisation, its statistics those of the global batch; `first` is the initial scale.

    The running average moves by a tenth of the batch's at each step, as in PyTorch; but the variance that goes into it
    is the batch's own, where PyTorch takes n/(n - 1) of it, with n the pixels of the batch.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,  # the mean of squares less the square of the mean loses digits: 7e-5 of a token
        dtype=jnp.dtype(dtype),
        scale_init=nn.with_logical_partitioning(nn.initializers.constant(first), ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


def _halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """The mean of every 2 x 2 pixels."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut: `[b h w c]` -> `[b h w 4*planes]`. Returns a pair, as a scan's body does.

    planes: channels of the 3x3. stride: 1 or 2. shortcut: whether the shortcut is a 1x1 too, or the input as it is.
    """

    planes: int
    stride: int = 1
    shortcut: bool = False
    train: bool = False
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], _: None = None) -> tuple[Float[Array, "b _h _w d"], None]:
        convolve = partial(_convolution, dtype=self.dtype)
        norm = partial(_batch_norm, train=self.train, dtype=self.dtype)
        out, kept = EXPANSION * self.planes, x
        x = nn.relu(norm("norm_in")(convolve(self.planes, 1, "in")(x)))
        x = nn.relu(norm("norm_middle")(convolve(self.planes, 3, "middle")(x)))
        if self.stride == 2:
            x, kept = _halved(x), _halved(kept)
        x = norm("norm_out", first=0.0)(convolve(out, 1, "out")(x))  # a fresh block passes its input on
        if self.shortcut:
            kept = norm("norm_shortcut")(convolve(out, 1, "shortcut")(kept))
        return nn.relu(x + kept), None


class ResNetTrunk(nn.Module):
    """Normalised pixels `[b h w 3]` -> `[b h/32 w/32 32*width]`. In a stage the blocks after the first are scanned."""

    layers: tuple[int, ...]
    width: int
    remat: Literal["full"] | None
    dtype: DtypeName

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b _h _w d"]:
        convolve = partial(_convolution, dtype=self.dtype)
        norm = partial(_batch_norm, train=train, dtype=self.dtype)
        for i, (features, stride) in enumerate([(self.width // 2, 2), (self.width // 2, 1), (self.width, 1)]):
            x = nn.relu(norm(f"norm{i}")(convolve(features, 3, f"stem{i}", stride=stride)(x)))
        x = _halved(x)
        first: type[nn.Module] = Bottleneck
        later: type[nn.Module] = Bottleneck
        if self.remat is not None:
            first = nn.remat(Bottleneck, policy=REMAT_POLICIES[self.remat])
            later = nn.remat(Bottleneck, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        for stage, depth in enumerate(self.layers):
            planes, stride = self.width * 2**stage, 1 if stage == 0 else 2
            x, _ = first(planes, stride, True, train, self.dtype, name=f"stage{stage}_first")(x)
            if depth > 1:
                rest = nn.scan(
                    later,
                    variable_axes={"params": 0, STATISTICS: 0},
                    split_rngs={"params": True},
                    length=depth - 1,
                    metadata_params={nn.PARTITION_NAME: "layers"},
                )
                x, _ = rest(planes, 1, False, train, self.dtype, name=f"stage{stage}_rest")(x, None)
        return x


class MeanAttention(nn.Module):
    """Attention pooling: the tokens' mean asks them and itself. Positions are learned, the mean's first."""

    positions: int
    heads: int
    embed_dim: int
    dtype: DtypeName

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        batch, _, width = tokens.shape
        normal = nn.initializers.normal(width**-0.5)
        position = parameter(self, "position", normal, ("position", "embed"), (1 + self.positions, width))
        mean = poolings.mean(tokens, mask)[:, None]
        x = jnp.concatenate([mean, tokens], axis=1) + position.astype(tokens.dtype)
        (query,) = HeadsIn(self.heads, 1, normal, name="query")(x[:, :1])
        key, value = HeadsIn(self.heads, 2, normal, name="key_value")(x)
        attended = attend(query, key, value, jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True))
        project = dense(self.embed_dim, ("embed", "joint"), normal, dtype=self.dtype, name="out")
        return project(attended.reshape(batch, width))


class ResNet(BareTower, kw_only=True):
    """Pictures uint8 `[B, H, W, 3]` -> stem -> four stages of blocks -> attention pooling. A tower, see `BareTower`.

    It has running statistics (the collection `batch_stats`): with train=True they are the batch's and move. The rows of
    bad examples, which are black pictures, count in them like any other.

    Attributes:
        layers: blocks of the four stages: (3, 4, 6, 3) is RN50, (3, 4, 23, 3) RN101, (4, 6, 10, 6) RN50x4,
            (6, 8, 18, 8) RN50x16, (3, 15, 36, 10) RN50x64.
        width: channels after the stem, a multiple of 2; the tokens have 32 times as many.
        heads: of the attention pooling; None: one for each 64 channels of a token, as published.
        size: (height, width) of the pictures in pixels, or one number for both; multiples of 32.
        embed_dim: size E of the embedding.
        mean, std: of the channels, for values in [0, 1]; the defaults bring pixels to [-1, 1].
        remat: None keeps all activations for the backward pass, `full` no more than each block's input.
        dtype: of the computation; parameters and statistics are float32.
    """

    layers: tuple[int, int, int, int]
    width: int = 64
    heads: int | None = None
    size: int | tuple[int, int]
    embed_dim: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    remat: Literal["full"] | None = None
    dtype: DtypeName = "float32"

    @property
    def embedding_size(self) -> int:
        """`embed_dim`."""
        return self.embed_dim

    def check_input(self, path: str, given: Incoming) -> None:
        check_pictures(path, self, given)

    @property
    def pool_heads(self) -> int:
        """The heads of the attention pooling."""
        return self.heads or self.width * STRIDE // HEAD_DIM

    def setup(self) -> None:
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise UserError(f"layers={self.layers}: it is four numbers of blocks, each at least 1")
        if self.remat not in (None, "full"):
            raise UserError(not_among("remat", self.remat, ("full",)))
        if self.width % 2:
            raise UserError(f"width={self.width} is odd, and the stem's first convolution has half of it")
        rows, columns = self.capacity()
        self.trunk = ResNetTrunk(tuple(self.layers), self.width, self.remat, self.dtype)
        self.attention_pool = MeanAttention(rows * columns, self.pool_heads, self.embed_dim, self.dtype)

    def capacity(self) -> tuple[int, int]:
        """The grid for which positions are kept."""
        return _grid(*((self.size, self.size) if isinstance(self.size, int) else self.size))

    def grid(self, x: Pictures) -> tuple[int, int]:
        """Rows and columns of tokens.

        Raises:
            UserError: the pictures are of another size.
        """
        grid = _grid(*x.shape[1:3])
        if grid != self.capacity():
            raise UserError(
                f"pictures of {x.shape[1]}x{x.shape[2]} pixels have {grid} tokens, but positions are for "
                f"{self.capacity()}: set size to the pictures', and bring the positions to it by positions.resize"
            )
        return grid

    def patches(self, x: Array, mask: None = None) -> tuple[Array, Array]:
        """Raises UserError: a picture's tokens overlap, so that none can be masked before the encoder."""
        raise UserError("a ResNet has no patches that could be masked: leave masking out, or take a ViT")

    def tokens(
        self,
        x: Pictures,
        mask: None = None,
        keep: None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The features of the last grid, row by row, `[B, H/32 * W/32, 32 * width]` in `dtype`; all are real."""
        del mask, keys  # nothing is dropped out
        if keep is not None:
            self.patches(x)
        rows, columns = self.grid(x)
        pixels = normalised(x, self.mean, self.std)
        tokens = self.trunk(constrain(pixels.astype(self.dtype), "batch", None, None, None), train)
        tokens = constrain(tokens.reshape(len(x), rows * columns, -1), *HIDDEN)
        return tokens, jnp.ones(tokens.shape[:2], bool)

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        return self.attention_pool(tokens, token_mask).astype(jnp.float32)

    def __call__(self, x: Pictures, mask: None = None, train: bool = False) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        return self.pool(*self.tokens(x, mask, train=train))


def _grid(height: int, width: int) -> tuple[int, int]:
    if height % STRIDE or width % STRIDE:
        raise UserError(f"pictures of {height}x{width} pixels: a ResNet takes multiples of {STRIDE}")
    return height // STRIDE, width // STRIDE
