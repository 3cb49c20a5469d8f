"""The arithmetic of video towers once more, in plain numpy float64, one example at a time."""

from typing import Any

import jax
import numpy as np

from tests.models import oracle

SIDE, FRAMES = (8, 12), 6
REAL = 4  # frames of the padded video


def videos(batch: int = 2, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, frames, *SIDE, 3)).astype(np.uint8)


def padded() -> tuple[np.ndarray, np.ndarray]:
    """Videos whose last frames are garbage, and the mask of the others."""
    return videos(), np.repeat(np.arange(FRAMES)[None] < REAL, 2, axis=0)


def tubelets(video: np.ndarray, patch: tuple[int, int, int]) -> np.ndarray:
    """The normalised tubelets `[T, R, C, P]` of one video, by loops."""
    t, p, q = patch
    pixels = np.asarray(video, np.float64) / 127.5 - 1
    steps, rows, columns = (range(0, whole, part) for whole, part in zip(video.shape, patch, strict=False))
    return np.stack([
        np.stack([np.stack([pixels[f : f + t, y : y + p, x : x + q].reshape(-1) for x in columns]) for y in rows])
        for f in steps
    ])  # fmt: skip


def turned(x: np.ndarray, places: Any) -> np.ndarray:
    """Queries or keys `[h n k]`, the channel pairs of each axis's share times complex numbers of length one.

    places: of each token along each axis; None: nothing is turned.
    """
    if places is None:
        return x
    x, axes = x.copy(), np.shape(places)[-1]
    pairs = x.shape[-1] // (2 * axes)
    for n, place in enumerate(places):
        for axis, at in enumerate(place):
            for k in range(pairs):
                i = 2 * (axis * pairs + k)
                z = (x[:, n, i] + 1j * x[:, n, i + 1]) * np.exp(1j * at * 10_000.0 ** (-k / pairs))
                x[:, n, i], x[:, n, i + 1] = z.real, z.imag
    return x


def attention(p: Any, x: np.ndarray, places: Any = None) -> np.ndarray:
    q, k, v = (oracle.heads_in(p["qkv"], x, part) for part in range(3))
    everything = np.ones((len(x), len(x)), bool)
    return oracle.attend(turned(q, places), turned(k, places), v, p["out"], everything)


def layers(p: Any) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], p["blocks"]) for i in range(len(p["blocks"]["norm_mlp"]["scale"]))]


def transformer(p: Any, x: np.ndarray, places: Any = None) -> np.ndarray:
    for one in layers(p):
        x = x + attention(one["attention"], oracle.layer_norm(one["norm_attention"], x), places)
        x = x + oracle.mlp(one["mlp"], oracle.layer_norm(one["norm_mlp"], x), "gelu")
    return oracle.layer_norm(p["norm"], x) if "norm" in p else x


def sequence(length: int, width: int) -> np.ndarray:
    """The fixed positions of a sequence."""
    turns = np.arange(length)[:, None] * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.sin(turns), np.cos(turns)], axis=-1)


def plane(rows: int, columns: int, width: int) -> np.ndarray:
    """The fixed positions of a picture's patches, the column's before the row's."""
    return np.concatenate([
        np.concatenate([sequence(columns, width // 2)[c], sequence(rows, width // 2)[r]])[None]
        for r in range(rows) for c in range(columns)
    ])  # fmt: skip
