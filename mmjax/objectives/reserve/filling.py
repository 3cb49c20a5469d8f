"""Compares what stands at a mask with texts that may stand there, by a `Reserve` objective's parameters."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.objectives.contrastive.objective import at_most
from mmjax.objectives.reserve.compared import nearly_unit
from mmjax.objectives.reserve.objective import LOSSES, SPAN_PLACES, SPANS
from mmjax.objectives.reserve.sequences import EncodedParts, joint_rows, sees
from mmjax.objectives.reserve.streams import SpanRows, StreamRows


def filled_logits(
    reserve: Any,
    rows: StreamRows,
    at: Int[Array, " b"],
    spans: SpanRows,
    audio: EncodedParts | None,
    video: EncodedParts,
) -> Float[Array, "b s"]:
    """The cosine of the joint transformer's state at a place with the vector of each span, times the learned scale of
    the loss of spans; fp32.

    reserve: bound. rows: of one sequence each, `[B, 1, L]`. at: the place of the mask.
    """
    joint = joint_rows(rows, reserve.token(rows.ids), audio, video, reserve.grid)
    x, places, blocks = (one[:, 0] for one in joint)
    states = reserve.joint(x, places, None, False, None, sees(blocks))
    state = nearly_unit(reserve.head(jnp.take_along_axis(states, at[:, None, None], axis=1)))[:, 0]
    batch, count, length = spans.ids.shape
    real = jnp.arange(length) < spans.lengths.reshape(-1, 1)
    steps = jnp.arange(1, length + 1)[:, None] / SPAN_PLACES
    vectors = reserve.span(reserve.token(spans.ids.reshape(-1, length)), steps, real)[:, 0]
    scale = jnp.exp(at_most(reserve.log_scale[LOSSES.index(SPANS)], math.log(reserve.scale_max)))
    return scale * jnp.einsum("bd,bsd->bs", state, nearly_unit(vectors).reshape(batch, count, -1))
