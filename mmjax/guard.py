"""What keeps a bad step from poisoning a run: judges a step's loss and gradient, and counts what was skipped."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import UserError

Counts = dict[str, Shaped[Array, ""]]


@dataclass(frozen=True)
class Spike:
    """A loss this far above the usual one is a spike, and its step is skipped like one that isn't finite.

    deviations: how many standard deviations above the mean. window: over how many good steps mean and deviation are
    taken (exponentially, once there are so many; before, nothing is a spike).

    Raises UserError where a number can't be.
    """

    deviations: float = 6.0
    window: int = 200

    def __post_init__(self) -> None:
        if not self.deviations > 0:
            raise UserError(f"Spike(deviations={self.deviations}): a spike lies above the mean, so above 0 deviations")
        if self.window < 2:
            raise UserError(f"Spike(window={self.window}): a deviation takes at least 2 steps")


def fresh(spike: Spike | None = None) -> Counts:
    """The counts before the first step: `skipped` in all, `in_a_row`; for spikes also what is known of the loss."""
    counts: Counts = {"skipped": jnp.zeros((), jnp.int32), "in_a_row": jnp.zeros((), jnp.int32)}
    if spike is not None:
        counts |= {"spikes": jnp.zeros((), jnp.int32), "seen": jnp.zeros((), jnp.int32)}
        counts |= {"mean": jnp.zeros((), jnp.float32), "variance": jnp.zeros((), jnp.float32)}
    return counts


def judge(
    counts: Counts, loss: Float[Array, ""], gradient_norm: Float[Array, ""], spike: Spike | None = None
) -> tuple[Bool[Array, ""], Counts]:
    """Whether a step's update is to be made, and the counts after it."""
    good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    after = dict(counts)
    if spike is not None:
        limit = counts["mean"] + spike.deviations * jnp.sqrt(counts["variance"])
        spikes = good & (counts["seen"] >= spike.window) & (loss > limit)
        good &= ~spikes
        after["spikes"] = counts["spikes"] + spikes
        # At first the plain mean and variance of what was seen, later exponential ones.
        share = 1 / jnp.minimum(counts["seen"] + 1, spike.window)
        away = loss - counts["mean"]
        after["seen"] = counts["seen"] + good
        after["mean"] = jnp.where(good, counts["mean"] + share * away, counts["mean"])
        variance = (1 - share) * (counts["variance"] + share * away**2)
        after["variance"] = jnp.where(good, variance, counts["variance"])
    after["skipped"] = counts["skipped"] + ~good
    after["in_a_row"] = jnp.where(good, 0, counts["in_a_row"] + 1)
    return good, after
