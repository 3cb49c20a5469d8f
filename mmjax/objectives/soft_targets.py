"""A teacher's part in an objective's targets, which may rise in the first steps (ALBEF: Li et al. 2021,
arXiv:2107.07651, section 3.4)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.errors import UserError


def ramped(alpha: float, ramp_steps: int, step: int | Int[Array, ""]) -> float | Float[Array, ""]:
    """The part at a step, `alpha * min(1, step / ramp_steps)`; `alpha` itself where `ramp_steps` is 0."""
    return alpha * jnp.minimum(1.0, step / ramp_steps) if ramp_steps else alpha


def check_alpha(path: str, alpha: float, ramp_steps: int) -> None:
    """Raises UserError where the part isn't from 0 to 1, or the steps are below 0."""
    if not 0 <= alpha <= 1:
        raise UserError(f"{path}.alpha={alpha} must lie from 0 to 1: the teacher's part of the targets")
    if ramp_steps < 0:
        raise UserError(f"{path}.ramp_steps={ramp_steps} must be at least 0 (0: alpha is there from the start)")
