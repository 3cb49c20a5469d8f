"""MERLOT Reserve's encoder in float64 NumPy, one sequence at a time, by the formulas of its paper and its code."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

EPS = 1e-5
Params = Mapping[str, Any]


def in_float64(params: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def normed(x: np.ndarray, held: Params) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPS) * held["scale"] + held["bias"]


def linear(x: np.ndarray, held: Params) -> np.ndarray:
    return x @ held["kernel"] + held.get("bias", 0.0)


def turned(x: np.ndarray, places: np.ndarray, scaled: bool) -> np.ndarray:
    """One head's queries or keys `[n, k]`: half of the channels, pair by pair; each axis has its share of the pairs."""
    found = x.copy()
    count, axes = places.shape
    pairs = x.shape[1] // 2 // (2 * axes)
    for token in range(count):
        for axis in range(axes):
            for number in range(pairs):
                speed = 5.0 ** (number / (pairs - 1)) if pairs > 1 else 1.0
                angle = np.pi * places[token, axis] * speed
                at = 2 * (axis * pairs + number)
                a, b = x[token, at], x[token, at + 1]
                if scaled:
                    found[token, at] = a * (np.sin(angle) - np.cos(angle))
                    found[token, at + 1] = b * (np.sin(angle) + np.cos(angle))
                else:
                    found[token, at] = a * np.cos(angle) - b * np.sin(angle)
                    found[token, at + 1] = a * np.sin(angle) + b * np.cos(angle)
    return found


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def attended(x: np.ndarray, held: Params, places: np.ndarray, allowed: np.ndarray, scaled: bool) -> np.ndarray:
    """A token that may attend to none takes in zeros."""
    qkv = np.einsum("nd,dhpk->hpnk", x, held["qkv"]["kernel"]) + held["qkv"]["bias"][:, :, None]
    total = np.zeros_like(x)
    for (query, key, value), out in zip(qkv, held["out"]["kernel"], strict=True):
        query, key = turned(query, places, scaled), turned(key, places, scaled)
        logits = query @ key.T / np.sqrt(query.shape[1])
        weights = softmax(np.where(allowed, logits, -1e30)) * allowed.any(-1, keepdims=True)
        total += weights @ value @ out
    return total


def encoded(
    x: np.ndarray,
    held: Params,
    places: np.ndarray,
    allowed: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    cls: bool = False,
    scaled: bool = False,
) -> np.ndarray:
    """The tokens `[n, d]` of one sequence after a `ReserveEncoder`; with a CLS the map of it first."""
    if cls:
        x = np.concatenate([held["cls"][None], x])
        places = np.concatenate([np.zeros_like(places[:1]), places])
        mask = None if mask is None else np.concatenate([[True], mask])
    if allowed is None:
        allowed = np.ones((len(x), len(x)), bool) if mask is None else np.tile(mask, (len(x), 1))
    x = normed(x, held["norm_pre"])
    stack = held["transformer"]["blocks"]
    for layer in range(stack["norm_mlp"]["scale"].shape[0]):
        block = jax.tree.map(lambda leaf: leaf[layer], stack)  # noqa: B023
        assert "bias" not in block["attention"]["out"]
        assert "bias" not in block["mlp"]["out"]
        x = x + attended(normed(x, block["norm_attention"]), block["attention"], places, allowed, scaled)
        hidden = linear(normed(x, block["norm_mlp"]), block["mlp"]["in"])
        x = x + linear(hidden / (1 + np.exp(-1.702 * hidden)), block["mlp"]["out"])
    x = normed(x, held["transformer"]["norm"])
    return np.concatenate([linear(x[:1], held["projection"]), x[1:]]) if cls else x


def pooled(few: np.ndarray, held: Params) -> np.ndarray:
    """One token of a few `[r, d]`: attention of their mean."""
    parts = held["attention"]
    query = np.einsum("d,dhpk->hpk", few.mean(0), parts["query"]["kernel"])[:, 0] + parts["query"]["bias"][:, 0]
    both = np.einsum("nd,dhpk->hpnk", few, parts["key_value"]["kernel"]) + parts["key_value"]["bias"][:, :, None]
    total = parts["out"]["bias"].copy()
    for head, (key, value) in enumerate(both):
        weights = softmax(key @ query[head] / np.sqrt(query.shape[1]))
        total = total + weights @ value @ parts["out"]["kernel"][head]
    return total


def axis_places(count: int) -> list[int]:
    """-n/2, ..., -1, 1, ..., n/2."""
    return [*range(-(count // 2), 0), *range(1, count - count // 2 + 1)]


def grid_places(rows: int, columns: int) -> np.ndarray:
    longest = max(rows, columns) + 1
    return np.array([(r / longest, c / longest) for r in axis_places(rows) for c in axis_places(columns)])
