"""Masking of videos by tubes: what is hidden in one step of time is hidden in all."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmjax.errors import UserError
from mmjax.objectives.masking import Keep


@dataclass(frozen=True, repr=False)
class KeepTubes(Keep):
    """Keeps the same random places of the picture in each step of a video, all places as likely (VideoMAE: Tong et al.
    2022, arXiv:2203.12602): else what is hidden could be copied from the step before. Its grid is (steps, rows,
    columns). Steps that aren't real have none.

    Attributes:
        share: the part of the places that stays, in (0, 1]: `ceil(share * rows * columns)`; VideoMAE keeps 20 of 196,
            a tenth.
        most: as in `Keep`, for the places.
    """

    def slots(self, patches: int, grid: tuple[int, ...]) -> int:
        return self._steps(grid) * self.count(patches // self._steps(grid))

    def order(
        self, key: PRNGKeyArray, valid: Bool[Array, " n"], grid: tuple[int, ...]
    ) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        steps = self._steps(grid)
        places = valid.shape[0] // steps
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(key, (places,), jnp.float32)))
        # Place by place, and within each step by step: the lowest numbers are those of whole tubes.
        order = rank[None, :] * steps + np.arange(steps)[:, None]
        real = valid.reshape(steps, places).any(axis=1).sum()
        return jnp.where(valid, order.reshape(-1).astype(jnp.float32), jnp.inf), real * self.count(places)

    def _steps(self, grid: tuple[int, ...]) -> int:
        if len(grid) != 3:
            raise UserError(
                f"KeepTubes hides places of videos in all of their steps, and the grid is {grid}: it takes a tower "
                "over tubelets, whose grid is (steps, rows, columns); Keep is for others"
            )
        return grid[0]
