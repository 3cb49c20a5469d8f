"""Skips the update of a step whose loss or gradient is not finite or spikes; counts skipped steps and bad examples."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmjax.data.bad_example import KINDS
from mmjax.experiment.definition import Spike

Counts = dict[str, Shaped[Array, "..."]]

LARGEST = 2**15 - 1  # of int16
WINDOW = 10_000  # examples in the exponential average of the share of bad ones


def marked(batch: Iterable[str]) -> list[str]:
    """The modalities whose bad examples a batch with these entries marks, sorted."""
    return sorted(name.removesuffix("_bad") for name in batch if name.endswith("_bad"))


def fresh(spike: Spike | None = None, modalities: int = 0) -> Counts:
    """The counts before the first step: `skipped` in all, `in_a_row`; with a spike rule also the statistics of the
    loss.

    modalities: the number of those with marked examples, for which there are `bad`, by modality and kind, and
    `bad_share`.
    """
    counts: Counts = {"skipped": jnp.zeros((), jnp.int32), "in_a_row": jnp.zeros((), jnp.int32)}
    if spike is not None:
        counts |= {"spikes": jnp.zeros((), jnp.int32), "seen": jnp.zeros((), jnp.int32)}
        counts |= {"mean": jnp.zeros((), jnp.float32), "variance": jnp.zeros((), jnp.float32)}
    if modalities:
        counts |= {"bad": jnp.zeros((modalities, len(KINDS)), jnp.int32), "bad_share": jnp.zeros((), jnp.float32)}
    return counts


def count_bad_examples(
    counts: Counts, batch: Mapping[str, Any], step: Int[Array, ""]
) -> tuple[Counts, dict[str, Array]]:
    """Adds the bad examples of the batch after `step` steps to the counts; returns the counts and their metrics.

    `bad/<modality>/<kind>`: so far; `bad_share`: of examples with anything bad among about the last WINDOW. The counts
    are the global batch's, and part of the state: the same on all hosts, and after a resume.
    """
    modalities = marked(batch)
    if not modalities:
        return counts, {}
    codes = jnp.stack([batch[f"{modality}_bad"] for modality in modalities])  # [modalities, B]
    kinds = jnp.arange(1, len(KINDS) + 1, dtype=codes.dtype)
    now = jnp.sum(codes[:, None] == kinds[:, None], axis=-1, dtype=jnp.int32)
    size = codes.shape[1]
    share = jnp.sum(jnp.any(codes > 0, axis=0), dtype=jnp.int32) / size
    window = max(1, WINDOW // size)  # steps
    before = counts["bad_share"]
    after = counts | {
        "bad": counts["bad"] + now,
        "bad_share": before + (share - before) / jnp.minimum(step + 1, window),  # at first the plain mean
    }
    told = {
        f"bad/{modality}/{kind}": after["bad"][row, column]
        for row, modality in enumerate(modalities)
        for column, kind in enumerate(KINDS)
    }
    return after, told | {"bad_share": after["bad_share"]}


def clipped(batch: Mapping[str, Any]) -> dict[str, Array]:
    """The metrics `clipped/<modality>` of this batch's waveforms: the share of their samples at full scale, where
    louder values were cut off, in reading or in the recording.
    """
    found = {}
    for name, waves in batch.items():
        mask = batch.get(f"{name}_mask")
        if mask is not None and mask.shape == waves.shape and waves.dtype == jnp.int16:
            full = (waves >= LARGEST) | (waves <= -LARGEST)
            counts = [jnp.sum(part, axis=1, dtype=jnp.int32).astype(jnp.float32) for part in (full & mask, mask)]
            found[f"clipped/{name}"] = jnp.sum(counts[0]) / jnp.maximum(jnp.sum(counts[1]), 1)
    return found


def judge(
    counts: Counts, loss: Float[Array, ""], gradient_norm: Float[Array, ""], spike: Spike | None = None
) -> tuple[Bool[Array, ""], Counts]:
    """Decides whether a step's update is made, and returns the counts after it."""
    good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    after = dict(counts)
    if spike is not None:
        limit = counts["mean"] + spike.deviations * jnp.sqrt(counts["variance"])
        spikes = good & (counts["seen"] >= spike.window) & (loss > limit)
        good &= ~spikes
        after["spikes"] = counts["spikes"] + spikes
        # At first the plain mean and variance of the losses so far, later exponential ones.
        share = 1 / jnp.minimum(counts["seen"] + 1, spike.window)
        away = loss - counts["mean"]
        after["seen"] = counts["seen"] + good
        after["mean"] = jnp.where(good, counts["mean"] + share * away, counts["mean"])
        variance = (1 - share) * (counts["variance"] + share * away**2)
        after["variance"] = jnp.where(good, variance, counts["variance"])
    after["skipped"] = counts["skipped"] + ~good
    after["in_a_row"] = jnp.where(good, 0, counts["in_a_row"] + 1)
    return good, after
