"""The video tower that reads each frame as a picture, by an image tower, and then the frames (CLIP4Clip: Luo et al.
2021, arXiv:2104.08860)."""

import math
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import part_keys, whole_keys
from mmjax.models.layers.parameters import BERT_STD, dense, parameter
from mmjax.models.layers.pooling import AttentionPool, mean
from mmjax.models.layers.transformer import Transformer
from mmjax.models.towers.bare import BareTower, Incoming
from mmjax.models.towers.tubelets import Videos, check_videos

FramePoolingName = Literal["mean", "map"]
EPSILON = 1e-12  # added to a squared norm: the gradient at a zero vector stays finite


class Frames(BareTower, kw_only=True):
    """Videos `[B, F, H, W, 3]` -> each frame by an image tower -> the mean over real frames, or a transformer over
    them. A tower, see `BareTower`.

    The image tower may be another tower of the experiment too, the very same, `towers={"image": vit, "video":
    Frames(frame=vit)}`: its parameters are then that one's, under `towers_image`. Frames that the mask `[B, F]` leaves
    out are read as black ones, and nothing looks at what becomes of them.

    Without `blocks` the order of the frames changes nothing. With them learned positions of time are added to the
    frames' embeddings, and a transformer reads them.

    Attributes:
        frame: the image tower.
        frames: the longest video, in frames, for which positions are kept; only with `blocks`.
        blocks: of the transformer, as wide as a frame's embedding, or with `patch_tokens` as its tokens; None: there is
            none.
        pooling: `mean`, or with `blocks` `map` (attention pooling with an MLP).
        patch_tokens: whether the tokens are all those of all frames, frame by frame; else one a frame, its embedding.
            The image tower must know its grid without a picture (a `ViT` does).
        residual: whether the frames' embeddings are added to the transformer's output, which has no last LayerNorm then
            (CLIP4Clip's sequential type).
        unit: whether what the mean is taken of has length 1 (CLIP4Clip).
        embed_dim: size E of the embedding, by a projection; None: there is none, and E is what is pooled.
    """

    frame: Any
    frames: int | None = None
    blocks: Blocks | None = None
    pooling: FramePoolingName = "mean"
    patch_tokens: bool = False
    residual: bool = False
    unit: bool = False
    embed_dim: int | None = None

    @property
    def embedding_size(self) -> int | None:
        """The size of the projection, or that of what is pooled."""
        if self.embed_dim is not None:
            return self.embed_dim
        return self.frame.embedding_size if self.blocks is None else self.blocks.width

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts videos of up to `frames`, of frames that the image tower accepts."""
        check_videos(path, given)
        if self.frames is not None and given.shape[0] > self.frames:
            raise UserError(
                f"data.transforms gives videos of {given.shape[0]} frames, more than the {self.frames} of "
                f"{path}.frames: set {path}.frames={given.shape[0]}, or the chain's frames to {self.frames}"
            )
        self.frame.check_input(f"{path}.frame", Incoming(given.shape[1:], given.dtype))

    def setup(self) -> None:
        self._check()
        width = self.frame.embedding_size
        if (blocks := self.blocks) is not None and self.frames is not None:
            width = blocks.width
            init = nn.initializers.normal(BERT_STD)
            self.position = parameter(self, "position", init, ("position", "embed"), (self.frames, width))
            self.transformer = Transformer(blocks, final_norm=not self.residual)
            if self.pooling == "map":
                self.attention_pool = AttentionPool(
                    heads=blocks.heads,
                    mlp_dim=blocks.hidden,
                    activation=blocks.activation,
                    norm_eps=blocks.norm_eps,
                    inits=blocks.inits,
                    dtype=blocks.dtype,
                )
        if self.embed_dim is not None:
            init = nn.initializers.lecun_normal()
            dtype = "float32" if blocks is None else blocks.dtype
            self.projection = dense(self.embed_dim, ("embed", "joint"), init, dtype=dtype, bias=False)

    def _check(self) -> None:
        if self.pooling not in get_args(FramePoolingName):
            raise UserError(not_among("pooling", self.pooling, get_args(FramePoolingName)))
        if self.pooling == "map" and self.unit:
            raise UserError("unit=True is of what a mean is taken of: leave it out with pooling='map'")
        if self.blocks is not None:
            if self.frames is None or self.frames < 1:
                raise UserError(
                    f"frames={self.frames}: with blocks there are learned positions, set frames to the longest video's"
                )
            return
        given = {"frames": self.frames is not None, "pooling='map'": self.pooling == "map", "residual": self.residual}
        if lacking := [name for name, there in given.items() if there]:
            raise UserError(
                f"Frames(blocks=None) takes the mean of its frames, without {', '.join(lacking)}: leave it out, or set "
                "blocks=Blocks(...)"
            )

    def _each(self) -> int:
        """The number of tokens of one frame, with `patch_tokens`."""
        if not hasattr(self.frame, "capacity"):
            raise UserError(
                "patch_tokens=True needs an image tower whose grid is known without a picture, and frame is a "
                f"{type(self.frame).__name__}: leave it out, or take a ViT"
            )
        return self.frame.prefix + math.prod(self.frame.capacity())

    def grid(self, x: Videos) -> tuple[int, ...]:
        """The number of frames; with `patch_tokens` also that of each one's tokens."""
        return (x.shape[1], self._each()) if self.patch_tokens else (x.shape[1],)

    def tokens(
        self,
        x: Videos,
        mask: Bool[Array, "b f"] | None = None,
        keep: None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens of the frames `[B, F, E]`, or with `patch_tokens` `[B, F * N, D]`, and which are real.

        Raises:
            UserError: there is a `keep`, or there are more frames than positions; `blocks` are of another width; with
                `patch_tokens` pictures of another size than the image tower's.
        """
        if keep is not None:
            self.patches(x)
        batch, count, *picture = x.shape
        real = jnp.ones((batch, count), bool) if mask is None else mask
        x = x if mask is None else jnp.where(mask[:, :, None, None, None], x, 0)
        found, its = self.frame.tokens(x.reshape(-1, *picture), train=train, keys=part_keys(keys, count))
        if self.patch_tokens:
            if found.shape[1] != self._each():
                raise UserError(
                    f"frames of {picture[0]}x{picture[1]} pixels have {found.shape[1]} tokens, and those of the image "
                    f"tower's size {self._each()}: set its size to theirs"
                )
            real = jnp.repeat(real, self._each(), axis=1) & its.reshape(batch, -1)
        else:
            found = self.frame.pool(found, its)
        found = found.reshape(batch, real.shape[1], -1)
        if self.blocks is None:
            return found, real
        return self._over_time(found, real, count, mask is None and not self.patch_tokens, train, keys), real

    def _over_time(
        self,
        x: Float[Array, "b n d"],
        real: Bool[Array, "b n"],
        count: int,
        all_real: bool,
        train: bool,
        keys: Key[Array, " b"] | None,
    ) -> Float[Array, "b n d"]:
        assert self.blocks is not None
        assert self.frames is not None
        if count > self.frames:
            raise UserError(f"videos of {count} frames are longer than frames={self.frames}: set it to theirs")
        if x.shape[2] != self.blocks.width:
            raise UserError(
                f"blocks.width={self.blocks.width}, and what the image tower gives of a frame is {x.shape[2]} wide: "
                "set it to that"
            )
        positions = jnp.repeat(self.position[:count], x.shape[1] // count, axis=0)
        x = x.astype(self.blocks.dtype)
        read = x + positions.astype(x.dtype)
        read = self.transformer(read, None if all_real else real, train, whole_keys(keys))
        return read + x if self.residual else read

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        if self.patch_tokens and self.blocks is None:
            batch, each = len(tokens), self._each()
            one = token_mask.reshape(-1, each)
            tokens = self.frame.pool(tokens.reshape(-1, each, tokens.shape[-1]), one)
            tokens, token_mask = tokens.reshape(batch, -1, tokens.shape[-1]), one.any(axis=1).reshape(batch, -1)
        if self.unit:
            tokens = tokens.astype(jnp.float32)
            tokens = tokens * jax.lax.rsqrt(jnp.sum(jnp.square(tokens), axis=-1, keepdims=True) + EPSILON)
        pooled = self.attention_pool(tokens, token_mask) if self.pooling == "map" else mean(tokens, token_mask)
        if self.embed_dim is not None:
            pooled = self.projection(pooled)
        return pooled.astype(jnp.float32)
