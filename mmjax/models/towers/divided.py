"""The video tower with divided space-time attention (TimeSformer: Bertasius et al. 2021, arXiv:2102.05095)."""

from typing import Any, cast

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Key

from mmjax.models.layers.divided import DividedTransformer
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.parameters import HIDDEN, constrain
from mmjax.models.towers.tubelets import SpaceAndTime, Videos


class DividedViT(SpaceAndTime, kw_only=True):
    """Videos uint8 `[B, F, H, W, 3]` -> tubelets -> blocks in which each attends along time, then along space.

    Its fields are those of a `TubeletViT`; TimeSformer's patches are of one frame, `patch=(1, 16, 16)`. Learned
    positions of space and of time are added, the latter zero at first, as is what a block adds along time: with the
    parameters of a picture's `ViT` it then reads each frame as that does, all with the mean of their CLS. Rotary ones
    turn queries and keys along the axes that an attention goes along. No patch can be left out (`keep`).
    """

    def make_transformer(self, causal: bool) -> Any:
        del causal
        return DividedTransformer(self.sizes, final_norm=not self.norm_pooled)

    def setup(self) -> None:
        super().setup()
        self._temporal_table(nn.initializers.zeros)

    def _positions(self, grid: tuple[int, ...]) -> Float[Array, "n d"] | None:
        space, time = super()._positions(grid[1:]), self._temporal(grid[0])
        return None if space is None or time is None else (time[:, None] + space).reshape(-1, space.shape[-1])

    def tokens(
        self,
        x: Videos,
        mask: Bool[Array, "b f"] | None = None,
        keep: None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        hidden: Bool[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens, as every tower's: a CLS where there is one, then those of the tubelets.

        hidden: a mask of the tubelets in whose place the mask token is read; the tower has `mask_token=True`.

        Raises:
            UserError: there is a `keep`.
        """
        self._check_keep(keep)
        tokens, real = self.front(x, mask, None, hidden)
        grid = self.grid(x)
        steps = None if mask is None else real.reshape(len(real), grid[0], -1)[:, :, 0]
        tokens, real = self._with_prefix(tokens, real) if self.cls else (tokens, real)
        tokens = self.norm_pre(tokens) if self.pre_norm else tokens
        rate = self.sizes.dropout
        keys = dropout_keys(self, rate, train, keys, len(tokens))
        tokens = drop(constrain(tokens, *HIDDEN), rate, keys, BEFORE_BLOCKS)
        space, time = self._angles(grid[1:], None), self._temporal_angles(grid[0], self.sizes)
        over_both = cast(DividedTransformer, self.transformer)
        return over_both(tokens, grid[0], steps, train, keys, space, time, self.prefix), real
