"""DINOv2's tower out of a small ONNX file, written here as PyTorch's export writes one."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.interop import onnx, parameter_rules
from mmjax.interop.hf import dinov2
from mmjax.interop.hf import layout as hf_layout
from mmjax.interop.projects import PROJECTS
from mmjax.interop.resolve import resolve
from tests.interop import small
from tests.runtime.files.test_archives import in_little_memory

WIDTH, SIZE, PATCH, KEPT = 64, 8, 4, 12  # positions are kept for 12 pixels, pictures have 8
CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "mlp_ratio": 2,
    "image_size": KEPT,
    "patch_size": PATCH,
}


def field(number, value):
    """A field of a protobuf message: a number, or bytes with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def tensor(name, array, packed=False):
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = field(1, b"".join(map(varint, array.shape))) if packed else b"".join(field(1, n) for n in array.shape)
    return field(5, dims + field(2, kind) + field(8, name) + field(9, array.tobytes()))


def node(kind, inputs, output):
    return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind))


def exported(arrays, erf="Erf"):
    """The file of a model whose `backbone.` is a tower of these arrays. Matrices and positions lose their names."""
    graph = b""
    for number, (name, array) in enumerate(arrays.items()):
        full = f"backbone.{name}"
        if name == onnx.POSITIONS:
            graph += tensor("x::1", array[:, :1]) + tensor("x::2", array[:, 1:], packed=True)
            graph += node("Reshape", ["x::2", "shape"], "/backbone/embeddings/Reshape_1_output_0")
            graph += node("Concat", ["x::1", "resized"], "/backbone/embeddings/Concat_6_output_0")
        elif name.endswith(".weight") and array.ndim == 2:
            layer = full.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
            graph += tensor(f"y::{number}", np.ascontiguousarray(array.T))
            graph += node("MatMul", ["tokens", f"y::{number}"], f"/{layer}/MatMul_output_0")
        else:
            graph += tensor(full, array)
    graph += tensor("decoder.weight", np.ones((3, WIDTH), np.float32)) + tensor("shape", np.zeros(3, np.int64))
    graph += node("MatMul", ["tokens", "decoder.weight"], "/decoder/MatMul_output_0")
    graph += node("MatMul", ["query", "key"], "/backbone/encoder/layer.0/attention/attention/MatMul_output_0")
    graph += node(erf, ["tokens"], "/backbone/encoder/layer.0/mlp/activation/Erf_output_0")
    axes = field(1, field(2, "batch")) + b"".join(field(1, field(1, n)) for n in (3, SIZE, SIZE))
    graph += field(11, field(1, "image") + field(2, field(1, field(1, 1) + field(2, axes))))
    return field(1, 7) + field(7, graph) + field(8, field(2, 17))


@pytest.fixture(scope="module")
def model():
    """Of random numbers, with positions for `KEPT` pixels; and its arrays under Hugging Face's names."""
    family = hf_layout.family_of(CONFIG, "test")
    parts = family.parts(CONFIG)
    transforms = {"image": hf_layout.hf_preprocessing.pictures(None, family, parts.towers["image"])}
    bundle = small.randomised(hf_layout.bundles.stand_in(*parts[:2], transforms))
    return bundle, parameter_rules.give(family.rules(hf_layout.built(parts)), bundle.variables, "test")


def test_the_tower_is_found_among_all_that_is_in_the_file(model, tmp_path):
    bundle, arrays = model
    (tmp_path / "model.onnx").write_bytes(exported(arrays))
    read = resolve(tmp_path / "model.onnx")
    assert read.config.towers["image"].size == SIZE
    assert hf_layout.build(read.config.towers["image"]).blocks.layer_scale is not None
    ours, theirs = read.variables["params"]["towers_image"], bundle.variables["params"]["towers_image"]
    at = dinov2.positions_at(theirs["position"], (3, 3), (2, 2))
    np.testing.assert_array_equal(ours["position"], at)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, {**theirs, "position": at})


def test_what_is_no_such_file_says_why(model, tmp_path):
    _, arrays = model
    file = tmp_path / "model.onnx"
    whole = exported(arrays)
    for content, message in (
        (b"not a protobuf", "is no ONNX file that can be read"),
        (whole[:-5000], "is no ONNX file that can be read"),
        (b"", "holds no graph"),
        (b"\x38\x01", "is no ONNX file that can be read"),  # the graph is a number
        (exported({name: array for name, array in arrays.items() if name != onnx.CLASS}), "has 0 towers"),
        (exported({name: array for name, array in arrays.items() if name != onnx.POSITIONS}), "no patch embedding or"),
        (exported({n: a for n, a in arrays.items() if n != "encoder.layer.1.mlp.fc2.weight"}), r"layer\.1\.mlp\.fc2"),
        (exported(arrays, erf="Tanh"), "exact GELU"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            resolve(file)
    numbers = (  # in the place of texts, which would become as many zeros; a number of a megabyte; shapes that lie
        (field(7, field(1, field(4, 2**40))), "1099511627776 stands where a message or a text should be"),
        (field(7, field(5, field(8, 2**40))), "1099511627776 stands where a message"),
        (field(7, field(5, field(2, 1) + field(9, 2**40))), "1099511627776 stands where a message"),
        (field(7, field(11, 2**40)), "1099511627776 stands where a message"),
        (b"\x38" + b"\xff" * 2**20, "a number has more than 64 bits"),
        (field(7, field(5, field(1, 2**40) + field(2, 1) + field(9, bytes(8)))), "holds 2 numbers"),
        (field(7, field(5, field(1, 2**62) * 9 + field(2, 1) + field(9, bytes(8)))), "holds 2 numbers"),
    )
    for content, message in numbers:
        file.write_bytes(content)
        with in_little_memory(), pytest.raises(UserError, match=f"is no ONNX file that can be read: .*{message}"):
            resolve(file)
    with pytest.raises(UserError, match="can't be written as ONNX"):
        PROJECTS["onnx"].write(model[0], tmp_path / "other.onnx")
