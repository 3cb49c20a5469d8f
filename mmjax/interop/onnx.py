"""DINOv2's tower out of an ONNX file of a model that is built on it, as PyTorch exported it from `Dinov2Model`.

An exported graph keeps the names of most parameters. Matrices, which it holds transposed, have none: the products that
use them are named after the layers. Of the file's protobuf (onnx.proto3 at github.com/onnx/onnx) this reads just that.
What comes behind the tower is left out.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UserError
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf import dinov2
from mmjax.interop.hf import layout as hf_layout
from mmjax.interop.hf import preprocessing as hf_preprocessing
from mmjax.interop.weight_files import Arrays
from mmjax.runtime.files import regular

HEAD = 64  # channels of a head, in all of DINOv2's published sizes: reshapes in the graph alone would tell
LARGEST = 2**31  # bytes: protobuf has no larger message
CLASS = "embeddings.cls_token"
POSITIONS = "embeddings.position_embeddings"
_MATRIX = re.compile(r"/(.+)/MatMul(_\d+)?_output_0")
# The numbers of fields in onnx.proto3, and of types of numbers.
_GRAPH = 7
_NODE, _INITIALISER, _INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND = 1, 2, 4
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9
_TYPES = {1: "<f4", 10: "<f2"}


class Node(NamedTuple):
    """An operation of the graph, with the names of what goes in and comes out."""

    kind: str
    inputs: list[str]
    outputs: list[str]


class Graph(NamedTuple):
    """initialisers: arrays of floats by name.  nodes: in order.  size: pixels of the first input's last axis, or 0."""

    initialisers: Arrays
    nodes: list[Node]
    size: int


def read(file: str | Path) -> Bundle:
    """The image tower in the file, for pictures of the size that the graph takes.

    Raises:
        UserError: the file is broken, or has no such tower.
    """
    file = Path(file)
    try:
        graph = parse_onnx(regular.content(file, LARGEST))
    except (IndexError, OverflowError, TypeError, ValueError) as error:  # of lengths, names and shapes that can't be
        raise UserError(f"{file} is no ONNX file that can be read: {error}") from error
    arrays = tower(graph, str(file))
    family = dinov2.FAMILIES[-1]
    try:
        said = _described(arrays, graph, str(file))
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{file} has a tower like Dinov2Model's, but not its arrays: {error!r}") from error
    parts = family.parts(said)
    variables = parameter_rules.take(family.rules(hf_layout.built(parts)), arrays, str(file))
    config = parts.towers["image"]
    size = graph.size or config.size
    said = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": size}, "crop_size": size}
    mean, std = hf_preprocessing.IMAGENET
    chain = hf_preprocessing.pictures({**said, "resample": 3, "image_mean": mean, "image_std": std}, family, config)
    hf_layout.fit(config, variables["params"]["towers_image"], chain, dinov2.positions_at)
    bundle = Bundle(bundles.stand_in(parts.towers, {}, {"image": chain}), variables, {}, str(file))
    bundles.check_bundle(bundle)
    return bundle


def write(bundle: Bundle, path: Path, exact: bool = True) -> None:
    """Raises UserError: nothing is written so."""
    del path, exact
    raise UserError(f"{bundle.source or 'the model'} can't be written as ONNX, which is only read; hf can be written")


def tower(graph: Graph, where: str) -> Arrays:
    """The tower's arrays by the names of Hugging Face's files.

    Raises:
        UserError: there is none.
    """
    found = [name.removesuffix(CLASS) for name in graph.initialisers if name.endswith(CLASS)]
    if len(found) != 1:
        raise UserError(
            f"{where} has {len(found)} towers of Dinov2Model's layout, arrays named …{CLASS}: 1 can be read"
        )
    (prefix,) = found
    named = {name: a for name, a in graph.initialisers.items() if name.startswith(prefix)}
    positions: dict[int, np.ndarray] = {}
    for node in graph.nodes:
        place = node.outputs[0] if node.outputs else ""
        unnamed = [graph.initialisers[i] for i in node.inputs if i in graph.initialisers and i not in named]
        if (match := _MATRIX.fullmatch(place)) and unnamed and (name := match[1].replace("/", ".")).startswith(prefix):
            named[f"{name}.weight"] = unnamed[0].T
        elif place.startswith(f"/{prefix.replace('.', '/')}embeddings/"):
            # The table comes in two parts, the CLS's and the patches': the export has cut a constant.
            positions |= {array.shape[1]: array for array in unnamed if array.ndim == 3}
    if len(positions) == 2:
        named[prefix + POSITIONS] = np.concatenate([positions[length] for length in sorted(positions)], axis=1)
    return {name.removeprefix(prefix): array for name, array in named.items()}


def _described(arrays: Arrays, graph: Graph, where: str) -> dict[str, Any]:
    """The config.json of the tower.

    Raises:
        UserError: the activation isn't the exact GELU, which all of DINOv2's sizes that are known here have.
    """
    if not any(node.kind in ("Erf", "Gelu") for node in graph.nodes):
        raise UserError(f"{where}: there is no Erf in the graph, and the activation of DINOv2 is the exact GELU")
    stem = arrays.get("embeddings.patch_embeddings.projection.weight")
    if stem is None or POSITIONS not in arrays:
        raise UserError(f"{where} has a tower like Dinov2Model's, but no patch embedding or positions by its names")
    width, patch = len(stem), stem.shape[-1]
    layers = [int(name.split(".")[2]) for name in arrays if name.startswith("encoder.layer.")]
    return {
        "hidden_size": width,
        "num_hidden_layers": max(layers, default=-1) + 1,
        "num_attention_heads": max(1, width // HEAD),
        "mlp_ratio": arrays["encoder.layer.0.mlp.fc1.bias"].size // width,
        "image_size": math.isqrt(arrays[POSITIONS].shape[1] - 1) * patch,
        "patch_size": patch,
        "use_mask_token": False,
    }


def parse_onnx(data: bytes) -> Graph:
    """Parses the needed parts of an ONNX file.

    Raises:
        IndexError, OverflowError, TypeError, ValueError: it isn't one.
    """
    graphs = [_message(value) for number, value in _fields(memoryview(data)) if number == _GRAPH]
    if len(graphs) != 1:
        raise ValueError("it holds no graph")
    initialisers: Arrays = {}
    nodes, size = [], 0
    for number, value in _fields(graphs[0]):
        if number == _NODE:
            fields = ((field, text) for field, text in _fields(_message(value)) if field <= _NODE_KIND)
            parts = [(field, bytes(_message(text)).decode()) for field, text in fields]
            kinds, inputs, outputs = ([t for f, t in parts if f == w] for w in (_NODE_KIND, _NODE_INPUT, _NODE_OUTPUT))
            nodes.append(Node(kinds[0], inputs, outputs))
        elif number == _INITIALISER:
            name, array = _tensor(value)
            if array is not None:
                initialisers[name] = array
        elif number == _INPUT and not size:
            size = _last_axis(value)
    return Graph(initialisers, nodes, size)


def _tensor(data: memoryview) -> tuple[str, np.ndarray | None]:
    """A name and its array; None where it holds no floats."""
    shape, name, kind, raw = [], "", 0, None
    for number, value in _fields(_message(data)):
        if number == _DIMS:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _TYPE:
            kind = value
        elif number == _NAME:
            name = bytes(_message(value)).decode()
        elif number == _RAW:
            raw = _message(value)
    if kind not in _TYPES or raw is None:
        return name, None
    values = np.frombuffer(raw, _TYPES[kind])
    if math.prod(shape) != values.size:
        raise ValueError(f"{name!r:.100} of the shape {shape} holds {values.size:,} numbers")
    return name, values.reshape(shape).astype(np.float32)


def _last_axis(data: memoryview) -> int:
    """The size of the last axis in an input's description; 0 where that is not fixed."""
    for number in (2, 1, 2):  # its type; of a tensor; its shape
        found = [value for field, value in _fields(_message(data)) if field == number]
        if not found:  # an input that is no tensor, or one of any shape
            return 0
        data = found[0]
    axes = [dict(_fields(_message(value))) for field, value in _fields(_message(data)) if field == 1]
    size = axes[-1].get(1, 0) if axes else 0
    return size if isinstance(size, int) else 0


def _message(value: Any) -> memoryview:
    """Returns a value that must be bytes: a number in its place would become so many zeros."""
    if not isinstance(value, memoryview):
        raise TypeError(f"{value} stands where a message or a text should be")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: number, and the number or bytes that it holds."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind] if kind in (1, 5) else -1, at)
            if length < 0 or at + length > len(data):
                raise ValueError(f"a field of kind {kind} goes beyond its end")
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value
