"""The arrays of a folder in the layout of the Hugging Face hub: safetensors, whole or in shards, or PyTorch's own file.

Nothing that is read can run code: PyTorch's file is opened with `weights_only`.
"""

import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError
from mmjax.runtime.files import archives, json_text, regular

WHOLE, SHARDS, TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
TORCH_SHARDS = "pytorch_model.bin.index.json"

# Where checkpoints of trainers have the model, beside the optimiser's state; in this order.
ENTRIES = ("state_dict", "model_state_dict", "model", "module", "net")
LFS = b"version https://git-lfs"
SAVE = "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"

Arrays = dict[str, np.ndarray]


def read(folder: Path) -> Arrays:
    """Every array by its name, float32 where it is any float.

    Raises:
        UserError: there is no such file, it is broken, or PyTorch's file has no PyTorch to open it.
    """
    for name in (WHOLE, TORCH):
        if (folder / name).is_file():
            return read_file(folder / name)
    for name, reader in ((SHARDS, _safetensors), (TORCH_SHARDS, _torch)):
        if (folder / name).is_file():
            return _fp32(_sharded(folder, name, reader))
    raise UserError(f"{folder} holds no parameters: it has neither {WHOLE} nor {SHARDS} nor {TORCH}")


def read_file(file: Path) -> Arrays:
    """Every array of one file, safetensors by its name's end or else PyTorch's, float32 where it is any float.

    Raises:
        UserError: it is broken, or it is PyTorch's, and there is no PyTorch to open it.
    """
    _check_pointer(file)
    return _fp32((_safetensors if file.suffix == ".safetensors" else _torch)(file))


def write(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes `model.safetensors`, as PyTorch's: what its users' libraries look for in the metadata."""
    from safetensors.numpy import save_file

    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    save_file(ordered, folder / WHOLE, metadata={"format": "pt"})


def _sharded(folder: Path, index: str, reader: Callable[[Path], Arrays]) -> Arrays:
    try:
        names = json_text.read(folder / index)["weight_map"]
        shards = sorted(set(names.values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / index} lists no shards: {error!r}") from error
    arrays: Arrays = {}
    for file in shards:
        if not isinstance(file, str) or Path(file).name != file or not (folder / file).is_file():
            raise UserError(f"{folder / index} names the shard {file!r}, which isn't in the folder")
        _check_pointer(folder / file)
        arrays |= reader(folder / file)
    if missing := sorted(set(names) - set(arrays)):
        raise UserError(f"{folder}: {len(missing)} arrays of {index} are in no shard: {', '.join(missing[:8])}")
    return arrays


def _safetensors(file: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} can't be read: {error}") from error


def _torch(file: Path) -> Arrays:
    try:
        import torch
    except ImportError as error:
        raise UserError(f'{file} is PyTorch\'s: pip install "mmjax[interop]", or torch alone, to read it') from error
    try:
        if zipfile.is_zipfile(file):
            archives.check_zip(file)
        with warnings.catch_warnings(action="ignore"):  # of what the error says too
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a zip, a pickle that holds more than tensors, ...: whatever it raises
        raise UserError(_unopened(file, str(error))) from error
    held = next((saved[name] for name in ENTRIES if _tensors(saved.get(name))), saved) if _is_dict(saved) else {}
    tensors = _tensors(held)
    if not tensors:
        entries = ", ".join(map(str, saved))[:200] if _is_dict(saved) else type(saved).__name__
        raise UserError(
            f"{file} holds no tensors by name, of a model or in {', '.join(ENTRIES)}, but {entries or 'nothing'}: "
            f"save the model's state_dict() alone, {SAVE}"
        )
    archives.bounded(file, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))
    if odd := [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_quantized]:
        raise UserError(f"{file}: {odd[0]!r:.100} is no plain array but sparse, or quantized")
    return {name: (t.float() if t.is_floating_point() else t).detach().numpy() for name, t in tensors.items()}


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _tensors(value: Any) -> dict[str, Any]:
    """The tensors by their names, where it is a dict that holds some."""
    import torch

    given = value.items() if _is_dict(value) else ()
    return {name: tensor for name, tensor in given if isinstance(name, str) and isinstance(tensor, torch.Tensor)}


def _unopened(file: Path, reason: str) -> str:
    """The error for a file that PyTorch doesn't open as tensors alone. reason: what it says itself, many lines."""
    if "TorchScript" in reason:
        return (
            f"{file} is a TorchScript archive, code and tensors in one, which isn't run: save the tensors alone, {SAVE}"
        )
    if objects := sorted(set(re.findall(r"GLOBAL ([\w.]+)", reason))):
        return (
            f"{file} holds objects of Python beside its tensors ({', '.join(objects)}), which aren't opened, since "
            f"they can run code: where you trust it, save the tensors alone, {SAVE}"
        )
    return f"{file}, of {file.stat().st_size:,} bytes, is damaged, or no file of PyTorch's"


def _check_pointer(file: Path) -> None:
    regular.check(file)
    with file.open("rb") as opened:
        if opened.read(len(LFS)) == LFS:
            raise UserError(f"{file} is a pointer of Git LFS; `git lfs pull` in its folder brings the file itself")


def _fp32(arrays: Arrays) -> Arrays:
    return {name: a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for name, a in arrays.items()}
