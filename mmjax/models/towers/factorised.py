"""The video tower of ViViT's factorised encoder: space first, then time (Arnab et al. 2021, arXiv:2103.15691, model
2)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys, part_keys, whole_keys
from mmjax.models.layers.parameters import HIDDEN, constrain, parameter
from mmjax.models.layers.transformer import Transformer
from mmjax.models.towers.contract import CLS_STD
from mmjax.models.towers.tubelets import SpaceAndTime, Videos

UNHONOURED = ("distill", "mask_token")  # what of a tower of patches has no place here


class FactorisedViT(SpaceAndTime, kw_only=True):
    """Videos uint8 `[B, F, H, W, 3]` -> tubelets -> a transformer over each step's, alone -> one over the steps.

    A step becomes one token: its CLS, or with `cls=False` the mean of its patches. Those are the tower's tokens, after
    a CLS of the video where there is one of each step; `pooling` is of them. The fields are those of a `TubeletViT`;
    `blocks` are of the transformer over space, whose parameters, positions and CLS have the names of a `ViT`'s. No
    patch can be masked.

    Attributes:
        temporal: the blocks of the transformer over steps, as wide.
    """

    temporal: Blocks

    def make_transformer(self, causal: bool) -> Any:
        return Transformer(self.sizes, causal)

    def setup(self) -> None:
        for name in UNHONOURED:
            if getattr(self, name):
                raise UserError(f"a {type(self).__name__} has no {name}: leave it out, or take a TubeletViT")
        super().setup()
        width = self.sizes.width
        if self.temporal.width != width:
            raise UserError(
                f"temporal.width={self.temporal.width}, but blocks.width={width}: the steps' tokens are as wide as "
                "their patches, set both alike"
            )
        self.temporal_transformer = Transformer(self.temporal, final_norm=not self.norm_pooled)
        init = nn.initializers.normal(width**-0.5 if self.position_std is None else self.position_std)
        self._temporal_table(init, before=int(self.cls))
        if self.cls:
            std = width**-0.5 if self.positions == "learned" else CLS_STD
            self.temporal_cls = parameter(self, "temporal_cls", nn.initializers.normal(std), ("embed",), (width,))

    def grid(self, x: Videos) -> tuple[int, ...]:
        """The number of steps, `(F / patch[0],)`.

        Raises:
            UserError: the videos don't divide into tubelets, or learned positions are of another size.
        """
        return super().grid(x)[:1]

    def patches(self, x: Videos, mask: Bool[Array, "b f"] | None = None) -> tuple[Array, Array]:
        """Raises UserError: its tokens are whole steps."""
        raise UserError(
            f"the tokens of a {type(self).__name__} are whole steps, of which no patch can be masked: leave masking "
            "out, or take a TubeletViT"
        )

    def _each_step(
        self, x: Videos, mask: Bool[Array, "b f"] | None
    ) -> tuple[Float[Array, "bt n d"], Bool[Array, "b t"]]:
        """The input of the transformer over space: each step's tokens; and which steps are real."""
        patches, real = super().patches(x, mask)
        steps, *space = self._steps_and_grid(x.shape[1:])
        tokens = self.stem(patches.reshape(len(x) * steps, -1, patches.shape[-1]))
        positions = self._positions(tuple(space))
        tokens = tokens if positions is None else tokens + positions.astype(tokens.dtype)
        if self.cls:
            tokens, _ = self._with_prefix(tokens, jnp.ones(tokens.shape[:2], bool))
        tokens = self.norm_pre(tokens) if self.pre_norm else tokens
        return tokens, real.reshape(len(x), steps, -1)[:, :, 0]

    def tokens(
        self,
        x: Videos,
        mask: Bool[Array, "b f"] | None = None,
        keep: None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens `[B, prefix + T, D]`, as every tower's: the CLS, then those of the steps.

        Raises:
            UserError: there is a `keep`.
        """
        self._check_keep(keep)
        tokens, real = self._each_step(x, mask)
        batch, steps = real.shape
        space = self._angles(self._steps_and_grid(x.shape[1:])[1:], None)
        rate = self.sizes.dropout
        each = dropout_keys(self, rate, train, part_keys(keys, steps), len(tokens))
        tokens = drop(constrain(tokens, *HIDDEN), rate, each, BEFORE_BLOCKS)
        tokens = self.transformer(tokens, None, train, each, space)  # of a real step all patches are
        found = tokens[:, 0] if self.cls else tokens.mean(axis=1, dtype=jnp.float32).astype(tokens.dtype)
        return self._over_time(found.reshape(batch, steps, -1), real, mask is None, train, whole_keys(keys))

    def _over_time(
        self, x: Float[Array, "b t d"], real: Bool[Array, "b t"], all_real: bool, train: bool, keys: Any
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        prefix, steps = int(self.cls), x.shape[1]
        positions = self._temporal(steps, prefix)
        x = x if positions is None else x + positions.astype(x.dtype)
        if self.cls:
            first = self.temporal_cls + (self.temporal_position[0] if self.positions == "learned" else 0.0)
            first = jnp.broadcast_to(first.astype(x.dtype), (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([first, x], axis=1)
            real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        rate = self.temporal.dropout
        keys = dropout_keys(self, rate, train, keys, len(x))
        x = drop(constrain(x, *HIDDEN), rate, keys, BEFORE_BLOCKS)
        angles = self._temporal_angles(steps, self.temporal, prefix)
        return self.temporal_transformer(x, None if all_real else real, train, keys, angles), real
