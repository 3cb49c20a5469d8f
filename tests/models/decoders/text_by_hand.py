"""The text decoder once more, in plain numpy float64: one example at a time, of its real tokens alone, in loops."""

from typing import Any

import numpy as np

from mmjax.models import TextDecoder
from tests.models import oracle


def norm(p: Any, x: np.ndarray, eps: float, kind: str) -> np.ndarray:
    if kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"]
    return x + p.get("bias", 0)


ACTIVATIONS = oracle.ACTIVATIONS


def mlp(p: Any, x: np.ndarray, blocks: Any) -> np.ndarray:
    hidden = ACTIVATIONS[blocks.activation](oracle.dense(p["in"], x))
    return oracle.dense(p["out"], hidden * oracle.dense(p["gate"], x) if blocks.gated else hidden)


def turned(x: np.ndarray, place: int, wavelength: float) -> np.ndarray:
    out = x.copy()
    for pair in range(len(x) // 2):
        angle = place * wavelength ** (-2 * pair / len(x))
        a, b = x[2 * pair], x[2 * pair + 1]
        out[2 * pair] = a * np.cos(angle) - b * np.sin(angle)
        out[2 * pair + 1] = a * np.sin(angle) + b * np.cos(angle)
    return out


def heads(p: Any, x: np.ndarray, part: int) -> np.ndarray:
    y = np.einsum("nd,dhk->nhk", x, p["kernel"][:, :, part])
    return y + p["bias"][:, part] if "bias" in p else y


def attended(p: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray, sees: Any) -> np.ndarray:
    """Of each query, head by head, over the keys that it sees."""
    out = np.zeros((len(q), p["out"]["kernel"].shape[-1]))
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if sees(i, j)]
        for h in range(q.shape[1]):
            g = h * k.shape[1] // q.shape[1]
            if seen:
                weights = oracle.softmax(k[seen, g] @ q[i, h] / np.sqrt(q.shape[-1]))
                out[i] += weights @ v[seen, g] @ p["out"]["kernel"][h]
    return out + p["out"].get("bias", 0)


def states(
    decoder: TextDecoder,
    p: Any,
    ids: np.ndarray,
    prefix: np.ndarray,
    context: np.ndarray | None = None,
    together: int = 0,
    within: Any = None,
) -> np.ndarray:
    """The states of the words of one text.

    prefix: `[p d]`, projected already, real tokens alone. context: `[c e]`, as the layers read it. within: the vector
    of each place at which no word stands, projected already.
    """
    blocks, layers = decoder.blocks, p["layers"]
    ahead = len(prefix)
    words = p["token"]["embedding"][ids] * (np.sqrt(blocks.width) if decoder.scaled else 1)
    for place, vector in (within or {}).items():
        words[place] = vector
    own = ahead if decoder.prefix_places else 0
    places = [*(range(ahead) if decoder.prefix_places else [0] * ahead), *range(own, own + len(ids))]
    x = np.concatenate([prefix, words])
    for i, place in enumerate(places):
        if decoder.positions == "learned" and (i >= ahead or decoder.prefix_places):
            x[i] += p["position"][place]
    if decoder.norm_embedded:
        x[ahead:] = norm(p["norm_first"], x[ahead:], blocks.norm_eps, blocks.norms)
    group = [0 if decoder.prefix_together else i for i in range(ahead)]
    for t in range(len(ids)):
        shares = t < together and (decoder.prefix_together or t > 0)
        group.append((group[-1] if group else 0) + (not shares))
    for layer in range(blocks.depth):
        window = blocks.windows()[layer]

        def sees(i: int, j: int, window: Any = window) -> bool:
            return group[j] <= group[i] and (window is None or places[i] - places[j] < window)

        x = one_layer(decoder, of_layer(decoder, layers, layer), x, places, sees, context)
    if blocks.norm == "pre":
        x = norm(layers["norm"], x, blocks.norm_eps, blocks.norms)
    return x[ahead:]


def of_layer(decoder: TextDecoder, layers: Any, layer: int) -> Any:
    first = decoder.blocks.depth if decoder.cross == "none" else decoder.cross_from
    name, every = ("lower", 1) if layer < first else ("upper", decoder.cross_every)
    group, place = divmod(layer if layer < first else layer - first, every)
    tree = layers[name][f"layer_{place}"]
    return {k: slice_of(v, group) for k, v in tree.items()}


def slice_of(tree: Any, group: int) -> Any:
    return {k: slice_of(v, group) for k, v in tree.items()} if isinstance(tree, dict) else tree[group]


def one_layer(decoder: Any, p: Any, x: np.ndarray, places: Any, sees: Any, context: np.ndarray | None) -> np.ndarray:
    blocks = decoder.blocks

    def normed(own: Any, x: np.ndarray) -> np.ndarray:
        return norm(own, x, blocks.norm_eps, blocks.norms)

    def read(own: Any, x: np.ndarray, context: Any) -> np.ndarray:
        q = heads(own["query"], x, 0)
        k, v = (heads(own["key_value"], context, part) for part in range(2))
        return attended(own, q, k, v, lambda i, j: True)

    def attention(x: np.ndarray) -> np.ndarray:
        own = p["attention"]
        if "qkv" in own:
            q, k, v = (heads(own["qkv"], x, part) for part in range(3))
        else:
            q = heads(own["query"], x, 0)
            k, v = (heads(own["key_value"], x, part) for part in range(2))
        if decoder.positions == "rotary":
            for i, place in enumerate(places):
                for each in (q, k):
                    for h in range(each.shape[1]):
                        each[i, h] = turned(each[i, h], place, decoder.wavelength)
        return attended(own, q, k, v, sees)

    def branch(name: str, x: np.ndarray, function: Any) -> np.ndarray:
        own = p[f"norm_{name}"]
        if blocks.norm == "post":
            return normed(own, x + function(x))
        return x + function(normed(own, x))

    def layer_of_its_own(x: np.ndarray) -> np.ndarray:
        own = p["cross"]
        gates = [np.tanh(own[f"gate_{name}"]) if decoder.cross == "gated" else 1 for name in ("attention", "mlp")]
        there = normed(own["norm_context"], context if context is not None else np.zeros((0, 1)))
        x = x + gates[0] * read(own["attention"], normed(own["norm_attention"], x), there)
        return x + gates[1] * mlp(own["mlp"], normed(own["norm_mlp"], x), blocks)

    if decoder.cross == "gated" and "cross" in p:
        x = layer_of_its_own(x)
    x = branch("attention", x, attention)
    if decoder.cross == "within" and "cross" in p:
        x = branch("cross", x, lambda y: read(p["cross"], y, context))
    x = branch("mlp", x, lambda y: mlp(p["mlp"], y, blocks))
    return layer_of_its_own(x) if decoder.cross == "after" and "cross" in p else x
