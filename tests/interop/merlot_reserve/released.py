"""A checkpoint in the released format, small, and what the released model computes with it: NumPy in float64, one
sequence at a time, by its own names and layouts of arrays.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization
from flax.traverse_util import unflatten_dict

WIDTH, HEAD, HEADS, PATCH, VOCAB = 128, 64, 2, 4, 64
GRID = (4, 6)  # patches of a frame
DEPTHS = {
    "vision_encoder": 2,
    "audio_encoder": 1,
    "span_encoder": 1,
    "joint_transformer": 11,
}  # of two digits, as released ones
SPECIAL = ("PAD", "START", "END", "MASK", "MASKAUDIO", "AUDIOSPAN", "LTOVPOOL", "unused0", "UNK", "RESETCTX")
AUDIOSPAN = 5

Tree = dict[str, Any]


def shapes(width: int, depths: dict[str, int], vocab: int, patch: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all parameters."""
    heads = width // HEAD
    found: dict[str, tuple[int, ...]] = {}

    def dense(name: str, *kernel: int, bias: bool = True) -> None:
        found[f"{name}/kernel"] = kernel
        if bias:
            found[f"{name}/bias"] = kernel[-1:]

    def norm(name: str) -> None:
        found.update({f"{name}/scale": (width,), f"{name}/bias": (width,)})

    def transformer(name: str, depth: int, cls: bool) -> None:
        norm(f"{name}/pre_ln")
        norm(f"{name}/final_ln")
        for number in range(depth):
            layer = f"{name}/layer_{number:02d}"
            norm(f"{layer}/pre_attn_ln")
            norm(f"{layer}/pre_mlp_ln")
            found[f"{layer}/attention_layer/qkv/kernel"] = (width, 3 * heads, HEAD)
            found[f"{layer}/attention_layer/qkv/bias"] = (3 * heads, HEAD)
            dense(f"{layer}/attention_layer/attn_proj", heads, HEAD, width, bias=False)
            dense(f"{layer}/mlp_layer/intermediate", width, 4 * width)
            dense(f"{layer}/mlp_layer/out", 4 * width, width, bias=False)
        if cls:
            found[f"{name}/cls"] = (width,)
            dense(f"{name}/cls_proj", width, width)

    for tower, kernel in (("vision_encoder", (3 * patch**2, width)), ("audio_encoder", (2, 65, width))):
        dense(f"{tower}/embedding", *kernel)
        transformer(f"{tower}/transformer", depths[tower], True)
        for part in ("query", "key", "value"):
            found[f"{tower}/seq_attnpool/{part}/kernel"] = (width, heads, HEAD)
            found[f"{tower}/seq_attnpool/{part}/bias"] = (heads, HEAD)
        dense(f"{tower}/seq_attnpool/out", heads, HEAD, width)
    transformer("span_encoder/transformer", depths["span_encoder"], True)
    transformer("joint_transformer", depths["joint_transformer"], False)
    dense("head", width, width)
    return found | {"token_encoder/Embed_0/embedding": (vocab, width), "contrastive_scales": (3,)}


def drawn() -> dict[str, np.ndarray]:
    """All parameters by name, as the file has them: in 16 bits."""
    random = np.random.default_rng(0)
    found = {}
    for name, shape in shapes(WIDTH, DEPTHS, VOCAB, PATCH).items():
        deviation = 0.08 if name.endswith("kernel") else 0.3
        found[name] = (name.endswith("scale") + deviation * random.normal(size=shape)).astype(np.float16)
    return found


def write(path: Path, arrays: dict[str, Any], **more: Any) -> Path:
    """The file of a training's state; more: other fields than the parameters."""
    state = {"step": 750_000, "params": unflatten_dict(arrays, sep="/"), "opt_state": None, **more}
    path.write_bytes(serialization.msgpack_serialize(state))
    return path


def write_tokenizer(path: Path) -> None:
    """A byte-level BPE of single letters, with the released one's special pieces and settings."""
    names = [f"<|{name}|>" for name in SPECIAL]
    alike = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab = {piece: place for place, piece in enumerate([*names, "Ġ", *"abcdefghijklmnopqrstuvwxyz"])}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    settings = {
        "version": "1.0", "truncation": None, "padding": None, "post_processor": None,
        "added_tokens": [{"id": place, "content": name, **alike} for place, name in enumerate(names)],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": True,
            "lowercase": True,
        },
        "pre_tokenizer": as_bytes, "decoder": as_bytes,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "vocab": vocab, "merges": [],
        },
    }  # fmt: skip
    path.write_text(json.dumps(settings), encoding="utf-8")


# --- what is computed ---


def tree(arrays: dict[str, np.ndarray]) -> Tree:
    return unflatten_dict({name: array.astype(np.float64) for name, array in arrays.items()}, sep="/")


def norm(x: np.ndarray, held: Tree) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * held["scale"] + held["bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def scaled(x: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Heads `[n, h, 64]`; of the first 32 channels the even and the odd ones are multiplied, each by its own factor."""
    axes = coordinates.shape[1]
    speeds = 2.0 ** np.linspace(0, np.log2(5), 16 // axes)
    angle = np.pi * (coordinates[:, :, None] * speeds).reshape(len(x), 1, 16)
    found = x.copy()
    found[..., 0:32:2] *= np.sin(angle) - np.cos(angle)
    found[..., 1:32:2] *= np.sin(angle) + np.cos(angle)
    return found


def transformer(x: np.ndarray, held: Tree, coordinates: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """The states `[n, d]`, or with a CLS `[1 + n, d]`, the first its projection. seen: the real ones of x."""
    if "cls" in held:
        x, coordinates = np.concatenate([held["cls"][None], x]), np.pad(coordinates, ((1, 0), (0, 0)))
        seen = None if seen is None else np.concatenate([[True], seen])
    x = norm(x, held["pre_ln"])
    for name in sorted(name for name in held if name.startswith("layer_")):
        layer = held[name]
        qkv = layer["attention_layer"]["qkv"]
        three = np.einsum("nd,dhk->nhk", norm(x, layer["pre_attn_ln"]), qkv["kernel"]) + qkv["bias"]
        query, key, value = (three[:, part * HEADS : (part + 1) * HEADS] for part in range(3))
        query, key = scaled(query, coordinates), scaled(key, coordinates)
        logits = np.einsum("nhk,mhk->hnm", query, key) / 8
        weights = softmax(logits if seen is None else np.where(seen, logits, -1e10))
        met = np.einsum("hnm,mhk->nhk", weights, value)
        x = x + np.einsum("nhk,hkd->nd", met, layer["attention_layer"]["attn_proj"]["kernel"])
        mlp = layer["mlp_layer"]
        inner = norm(x, layer["pre_mlp_ln"]) @ mlp["intermediate"]["kernel"] + mlp["intermediate"]["bias"]
        x = x + inner / (1 + np.exp(-1.702 * inner)) @ mlp["out"]["kernel"]
    x = norm(x, held["final_ln"])
    if "cls" not in held:
        return x
    return np.concatenate([x[:1] @ held["cls_proj"]["kernel"] + held["cls_proj"]["bias"], x[1:]])


def pooled(few: np.ndarray, held: Tree) -> np.ndarray:
    """One token of a few, by their mean as the query."""
    query = np.einsum("d,dhk->hk", few.mean(0), held["query"]["kernel"]) + held["query"]["bias"]
    key, value = (np.einsum("nd,dhk->nhk", few, held[p]["kernel"]) + held[p]["bias"] for p in ("key", "value"))
    met = np.einsum("hn,nhk->hk", softmax(np.einsum("hk,nhk->hn", query, key) / 8), value)
    return np.einsum("hk,hkd->d", met, held["out"]["kernel"]) + held["out"]["bias"]


def axis(count: int) -> np.ndarray:
    """No place is 0."""
    half = count // 2
    return np.array([*range(-half, 0), *range(1, count - half + 1)], np.float64)


def cells(rows: int, columns: int) -> np.ndarray:
    return np.array([(r, c) for r in axis(rows) for c in axis(columns)]) / (max(rows, columns) + 1)


def frame(pixels: np.ndarray, held: Tree) -> np.ndarray:
    """Of a frame uint8 `[h, w, 3]` the vector, and the pooled tokens: `[1 + m, d]`."""
    rows, columns = GRID
    patches = [
        pixels[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].reshape(-1) / 255
        for r in range(rows)
        for c in range(columns)
    ]
    x = np.array(patches) @ held["embedding"]["kernel"] + held["embedding"]["bias"]
    found = transformer(x, held["transformer"], cells(rows, columns))
    grid = found[1:].reshape(rows, columns, WIDTH)
    tokens = [
        pooled(grid[r : r + 2, c : c + 2].reshape(4, WIDTH), held["seq_attnpool"])
        for r in range(0, rows, 2)
        for c in range(0, columns, 2)
    ]
    return np.concatenate([found[:1], tokens])


def clip(frames: np.ndarray, held: Tree) -> np.ndarray:
    """Of 60 frames of a spectrogram `[60, 65]` the vector, and the pooled tokens: `[1 + 6, d]`."""
    kernel = held["embedding"]["kernel"]
    x = np.array([np.einsum("fc,fcd->d", frames[t : t + 2], kernel) for t in range(0, 60, 2)])
    found = transformer(x + held["embedding"]["bias"], held["transformer"], axis(30)[:, None] / 30)
    tokens = [pooled(found[1 + t : 6 + t], held["seq_attnpool"]) for t in range(0, 30, 5)]
    return np.concatenate([found[:1], tokens])


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-5)


def span(ids: np.ndarray, held: Tree) -> np.ndarray:
    """The unit vector of an option, of ids with padding 0 behind."""
    x = held["token_encoder"]["Embed_0"]["embedding"][ids]
    places = (1.0 + np.arange(len(ids)))[:, None] / 16
    return unit(transformer(x, held["span_encoder"]["transformer"], places, ids != 0)[0])


def joint(ids: np.ndarray, subsegments: np.ndarray, frames: np.ndarray, clips: np.ndarray, held: Tree) -> np.ndarray:
    """The unit vectors of a row of ids `[n]`, each of a sub-segment, where padding is 0; frames `[s, m, d]` and clips
    `[3 s, 6, d]` as pooled tokens.
    """
    x = held["token_encoder"]["Embed_0"]["embedding"][ids]
    heard = np.cumsum(ids == AUDIOSPAN) - 1
    for place in np.flatnonzero(ids == AUDIOSPAN):
        x[place] = clips[subsegments[place], heard[place] % 6]
    places = np.zeros((len(ids), 4))
    places[:, 2], places[:, 3] = subsegments // 3 / 16, (1 + np.arange(len(ids))) / 1024
    cell = cells(GRID[0] // 2, GRID[1] // 2)
    for segment, tokens in enumerate(frames):
        of_frame = np.concatenate([cell, np.full((len(cell), 1), segment / 16), np.zeros((len(cell), 1))], axis=1)
        x, places = np.concatenate([x, tokens]), np.concatenate([places, of_frame])
    seen = np.concatenate([ids != 0, np.ones(len(x) - len(ids), bool)])
    states = transformer(x, held["joint_transformer"], places, seen)[: len(ids)]
    return unit(states @ held["head"]["kernel"] + held["head"]["bias"])
