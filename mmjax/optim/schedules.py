"""The learning rate over a run, as a share of its peak: a pure function of the step."""

from typing import Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mmjax.errors import UserError, nearest

ScheduleName = Literal["cosine", "linear", "constant", "rsqrt", "steps"]
SCHEDULES = ("cosine", "linear", "constant", "rsqrt", "steps")
COOLED = ("constant", "rsqrt")  # the others end by themselves, at `end` or with their last drop


def check_schedule(
    who: str,
    schedule: str,
    cooldown_steps: int,
    timescale: int,
    drops: tuple[int, ...] = (),
    drop: float = 0.5,
) -> None:
    """Raises UserError, with `who` at its start, where there is no such schedule, or a field is not of it."""
    if schedule not in SCHEDULES:
        raise UserError(
            f"{who}: schedule={schedule!r} must be {', '.join(SCHEDULES[:-1])} or {SCHEDULES[-1]}"
            f"{nearest(str(schedule), SCHEDULES)}."
        )
    if cooldown_steps < 0 or timescale < 1:
        raise UserError(
            f"{who}: cooldown_steps={cooldown_steps} must be at least 0, and timescale={timescale} at least 1."
        )
    if cooldown_steps and schedule not in COOLED:
        raise UserError(
            f"{who}: cooldown_steps={cooldown_steps} goes with schedule='constant' or 'rsqrt'; {schedule!r} ends by "
            "itself."
        )
    if (schedule == "steps") != bool(drops):
        raise UserError(
            f"{who}: drops={drops} go with schedule='steps', and there must be one at least; the schedule is "
            f"{schedule!r}."
        )
    if any(at < 1 for at in drops) or list(drops) != sorted(set(drops)):
        raise UserError(f"{who}: drops={drops} must be steps from 1 on, each later than the one before.")
    if not 0 < drop < 1:
        raise UserError(f"{who}: drop={drop} must be above 0 and below 1.")


def check_length(who: str, warmup_steps: int, cooldown_steps: int, total_steps: int) -> None:
    """Raises UserError where warm-up and cooldown don't leave a step of the run between them."""
    if warmup_steps >= total_steps:
        raise UserError(f"{who}: warmup_steps={warmup_steps} must be less than the run's {total_steps} steps.")
    if warmup_steps + cooldown_steps > total_steps:
        raise UserError(
            f"{who}: warmup_steps={warmup_steps} and cooldown_steps={cooldown_steps} are more than the run's "
            f"{total_steps} steps."
        )


def share(
    step: Int[Array, ""] | int,
    total_steps: int,
    *,
    schedule: str,
    warmup_steps: int,
    cooldown_steps: int,
    timescale: int,
    end: float,
    drops: tuple[int, ...] = (),
    drop: float = 0.5,
) -> Float[Array, ""]:
    """The share of the peak at a step (from 0).

    A linear warm-up: step s has (s+1)/warmup_steps, so that no step is lost. Then
        cosine: down to `end` at step `total_steps`;  linear: the same in a straight line;
        constant: the peak;
        rsqrt: sqrt(timescale / (timescale + s - warmup_steps)) (Zhai et al. 2021, arXiv:2106.04560), the same for runs
        of any length;
        steps: the peak times `drop` for each of the steps `drops` that has come; they count from the run's begin.
    With a cooldown the last steps go down to `end` in a straight line: from the constant that is the "warm-up, stable,
    decay" of Hu et al. 2024 (arXiv:2404.06395), and a run can be cooled down from any checkpoint of the stable part.

    The last step of a run is `total_steps - 1`, one short of `end` (as with optax's and torch's schedules):
    a run that ends at 0 takes no step at a rate of 0.
    """
    rest = total_steps - warmup_steps
    after = jnp.maximum(step - warmup_steps, 0)
    if schedule == "cosine":
        value = optax.cosine_decay_schedule(1.0, rest, end)(after)
    elif schedule == "linear":
        value = optax.linear_schedule(1.0, end, rest)(after)
    elif schedule == "rsqrt":
        value = jnp.sqrt(timescale / (timescale + after))
    elif schedule == "steps":
        value = jnp.prod(jnp.where(step >= jnp.asarray(drops), drop, 1.0))
    else:
        value = optax.constant_schedule(1.0)(after)
    if cooldown_steps:
        left = jnp.clip((total_steps - step) / cooldown_steps, 0, 1)
        value = end + (value - end) * left
    return jnp.where(step < warmup_steps, (step + 1) / max(warmup_steps, 1), value)
