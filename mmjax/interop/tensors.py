"""The arrays of a folder in the layout of the Hugging Face hub: safetensors, whole or in shards, or PyTorch's own file.

Nothing that is read can run code: PyTorch's file is opened with `weights_only`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError

WHOLE, SHARDS, TORCH = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
TORCH_SHARDS = "pytorch_model.bin.index.json"

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
    return _fp32((_safetensors if file.suffix == ".safetensors" else _torch)(file))


def write(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes `model.safetensors`, as PyTorch's: what its users' libraries look for in the metadata."""
    from safetensors.numpy import save_file

    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    save_file(ordered, folder / WHOLE, metadata={"format": "pt"})


def _sharded(folder: Path, index: str, reader: Callable[[Path], Arrays]) -> Arrays:
    try:
        names = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / index} lists no shards: {error!r}") from error
    arrays: Arrays = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not (folder / file).is_file():
            raise UserError(f"{folder / index} names the shard {file!r}, which isn't in the folder")
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
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a zip, a pickle that holds more than tensors, ...: whatever it raises
        raise UserError(f"{file} can't be read as tensors alone: {error}") from error
    tensors = tensors.get("state_dict", tensors)  # with the optimiser's state beside it
    tensors = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}


def _fp32(arrays: Arrays) -> Arrays:
    return {name: a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for name, a in arrays.items()}
