"""The logits of options for a masked place, against the formulas in NumPy, one token at a time."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives.reserve.filling import filled_logits
from mmjax.objectives.reserve.sequences import EncodedParts
from mmjax.objectives.reserve.streams import SpanRows, StreamRows
from tests.models.towers.reserve import twin
from tests.objectives.reserve import by_hand
from tests.objectives.reserve.windows import batch, objective, towers

FRAMES, EACH, LENGTH, WIDTH, AT = 3, 2, 12, 32, 9
IDS = [5] * 8 + [11, 3, 12] + [0]
SOUND = [*range(8), -1, -1, -1, -1]
SEGMENTS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0]
OPTIONS = [[21, 22, 23], [24], [21, 25]]


def held_by(part: Any) -> Any:
    """Parameters with numbers that matter, of the objective alone; the scale is above what it is clipped to."""
    from mmjax.objectives import Pretrainer

    pretrainer, random = Pretrainer(towers(), {"reserve": part}), np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), batch(1)))["params"]["objectives_reserve"]
    held = jax.tree.map(lambda x: jnp.float32(0.3 * random.normal(size=x.shape)), shapes)
    held["log_scale"] = jnp.float32([0.5, 0.7, 9.0])
    return held


@pytest.mark.parametrize(("scaled", "heard"), [(False, True), (True, True), (False, False)])
def test_logits_are_the_formulas(scaled: bool, heard: bool) -> None:
    part, random = objective(scaled=scaled, scale_max=30.0), np.random.default_rng(1)
    held = held_by(part)
    frames, clips = random.normal(size=(FRAMES, 7, WIDTH)), random.normal(size=(4, 1 + EACH, WIDTH))

    def parts(one: np.ndarray) -> EncodedParts:
        x = jnp.asarray(one[None], jnp.float32)
        return EncodedParts(x[:, :, 0], x[:, :, 1:], jnp.ones(x.shape[:2], bool))

    def row(values: Any) -> Any:
        return jnp.asarray(values)[None, None]

    begin = 0 if heard else 8
    ids, sound = np.array(IDS), np.array(SOUND)
    blocks = np.where((np.arange(LENGTH) < LENGTH - 1) & (np.arange(LENGTH) >= begin), 0, -1)
    nothing = row([-1] * LENGTH)
    rows = StreamRows(
        row(ids), row(SEGMENTS), row(blocks), row(sound), nothing, nothing, nothing, jnp.zeros((1, 1, FRAMES), int)
    )
    spans = np.zeros((1, 3, 4), np.int32)
    for place, option in enumerate(OPTIONS):
        spans[0, place, : len(option)] = option
    lengths = jnp.asarray([[len(option) for option in OPTIONS]])

    def forward(module: Any) -> Any:
        read = (jnp.asarray([AT]), SpanRows(jnp.asarray(spans), lengths), parts(clips) if heard else None)
        return filled_logits(module, rows, *read, parts(frames))

    found = nn.apply(forward, part)({"params": held})[0]

    own = twin.in_float64(held)
    table, x, places = own["token"]["embedding"], [], []
    for place in range(begin, LENGTH - 1):
        at = SOUND[place]
        x.append(table[ids[place]] if at < 0 else clips[at // EACH, 1 + at % EACH])
        places.append((0.0, 0.0, SEGMENTS[place] / 16, (place + 1) / 1024))
    for frame in range(FRAMES):
        for cell, where in enumerate(twin.grid_places(2, 3)):
            x.append(frames[frame, 1 + cell])
            places.append((*where, frame / 16, 0.0))
    states = twin.encoded(np.array(x), own["joint"], np.array(places), scaled=scaled)
    state = by_hand.unit(twin.linear(states[AT - begin], own["head"]))
    vectors = [by_hand.unit(by_hand.span_vector(np.array(option), own, table, scaled)) for option in OPTIONS]
    expected = [30.0 * state @ vector for vector in vectors]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.3
