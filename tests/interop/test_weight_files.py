"""Files of arrays: what trainers save beside a model, and what can't be opened, in one sentence."""

import argparse

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop import weight_files  # noqa: E402

MODEL = {"a": torch.nn.Parameter(torch.arange(3.0)), "b": torch.ones(2, dtype=torch.bfloat16)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    "saved",
    [
        MODEL,
        {"state_dict": MODEL, "epoch": 3},
        {"model": MODEL, "optimizer": {"state": {0: torch.zeros(2)}}},
        {"model_state_dict": MODEL, "loss": torch.zeros(1)},
        {"module": MODEL, "model": {"width": 3}},
    ],
)
def test_the_model_of_a_trainers_checkpoint(saved, tmp_path):
    torch.save(saved, tmp_path / "it.bin")
    arrays = weight_files.read_file(tmp_path / "it.bin")
    assert arrays.keys() == MODEL.keys()
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert {array.dtype.name for array in arrays.values()} == {"float32"}


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"state_dict": MODEL, "args": argparse.Namespace(lr=1)}, r"beside its tensors \(argparse.Namespace\), which"),
        (torch.nn.Linear(2, 2), r"beside its tensors \(torch.nn.modules.linear.Linear\), which aren't opened"),
        ({"student": MODEL, "teacher": MODEL}, r"holds no tensors by name, .* but student, teacher: save"),
        ([1, 2], r"holds no tensors by name, .* but list: save"),
        (b"", r"it.bin, of 0 bytes, is damaged, or no file of PyTorch's$"),
        (b"hello world" * 30, r"it.bin, of 330 bytes, is damaged, or no file of PyTorch's$"),
        (LFS, r"it.bin is a pointer of Git LFS; `git lfs pull` in its folder brings the file itself$"),
    ],
)
def test_what_holds_more_or_something_else_is_one_sentence(saved, said, tmp_path):
    file = tmp_path / "it.bin"
    if isinstance(saved, bytes):
        file.write_bytes(saved)
    else:
        torch.save(saved, file)
    with pytest.raises(UserError, match=said) as caught:
        weight_files.read_file(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    assert "weights_only" not in message


def test_a_torchscript_archive_is_named(tmp_path):
    """As OpenAI published CLIP."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "it.bin")
    with pytest.raises(UserError, match=r"it.bin is a TorchScript archive, .* safetensors.torch.save_file\(model"):
        weight_files.read_file(tmp_path / "it.bin")


def test_a_pointer_in_the_place_of_safetensors(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(LFS)
    with pytest.raises(UserError, match=r"model.safetensors is a pointer of Git LFS"):
        weight_files.read(tmp_path)
