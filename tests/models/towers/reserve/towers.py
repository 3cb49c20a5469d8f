"""Small towers of MERLOT Reserve, and the encoding of one part by hand."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models import Blocks, LogMel, ReserveAudio, ReserveVision
from tests.models.towers.reserve import twin

BLOCKS = Blocks(
    width=16, depth=2, heads=2, activation="quick_gelu", norm_eps=1e-5, inits="reserve", out_bias=False, remat=None
)
SIZE, PATCH = (8, 12), 2  # a grid of 4 x 6 patches
MELS = LogMel(rate=8_000, window=160, hop=80, fft=256, mels=8, fmin=20.0, scale="slaney", floor=0.1, mean=math.log(0.1))
SAMPLES = 20 * 80


def vision(**fields: Any) -> ReserveVision:
    return ReserveVision(**{"size": SIZE, "patch": PATCH, "blocks": BLOCKS, **fields})


def audio(**fields: Any) -> ReserveAudio:
    return ReserveAudio(**{"spectrogram": MELS, "samples": SAMPLES, "blocks": BLOCKS, **fields})


def drawn(module: Any, *inputs: Any) -> Any:
    """Parameters with numbers that matter, biases too."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    return jax.tree.map(lambda x: jnp.float32(0.3 * random.normal(size=x.shape)), shapes)


def frame_by_hand(frame: np.ndarray, held: Any, tower: ReserveVision) -> np.ndarray:
    """The tokens of one frame: its vector, and the pooled patches."""
    rows, columns, p, r = tower.size[0] // tower.patch, tower.size[1] // tower.patch, tower.patch, tower.ratio
    patches = [
        frame[y * p : (y + 1) * p, x * p : (x + 1) * p].reshape(-1) / 255 for y in range(rows) for x in range(columns)
    ]
    stem = twin.linear(np.array(patches), held["stem"])
    places = twin.grid_places(rows, columns)
    found = twin.encoded(stem, held["encoder"], places, cls=True, scaled=tower.scaled)
    cells = found[1:].reshape(rows, columns, -1)
    pools = [
        twin.pooled(cells[y : y + r, x : x + r].reshape(r * r, -1), held["neighbours"])
        for y in range(0, rows, r)
        for x in range(0, columns, r)
    ]
    return np.stack([found[0], *pools])


def mels_by_hand(clip: np.ndarray, mels: LogMel) -> np.ndarray:
    """Frame by frame: Hann window, power spectrum, triangles, log."""
    frames = []
    for start in range(0, len(clip), mels.hop):
        piece = np.zeros(mels.window)
        piece[: len(clip[start : start + mels.window])] = clip[start : start + mels.window] / 32_768
        power = np.abs(np.fft.rfft(piece * np.hanning(mels.window + 1)[:-1], mels.fft)) ** 2
        frames.append(np.log(power @ mels.filters() + 0.1) - math.log(0.1))
    return np.array(frames)


def clip_by_hand(clip: np.ndarray, held: Any, tower: ReserveAudio) -> np.ndarray:
    """The tokens of one clip: its vector, and the pooled patches."""
    frames = [[*frame, 1.0] for frame in mels_by_hand(clip, tower.spectrogram)]
    patches = [np.concatenate(frames[i : i + tower.patch]) for i in range(0, len(frames), tower.patch)]
    count = len(patches)
    places = np.array(twin.axis_places(count))[:, None] / count
    stem = twin.linear(np.array(patches), held["stem"])
    found = twin.encoded(stem, held["encoder"], places, cls=True, scaled=tower.scaled)
    pools = [twin.pooled(found[1 + i : 1 + i + tower.ratio], held["neighbours"]) for i in range(0, count, tower.ratio)]
    return np.stack([found[0], *pools])
