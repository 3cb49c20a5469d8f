"""Bombs are told by their tables: little memory is taken before they are refused."""

import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.errors import UserError
from mmjax.interop import weight_files
from mmjax.interop.big_vision import layout as big_vision_layout
from mmjax.runtime.files import archives

MB = 2**20
LITTLE = 24 * MB  # of which imports are most


@contextmanager
def in_little_memory() -> Iterator[None]:
    """Arrays of numpy are counted by tracemalloc too."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LITTLE, f"{peak / MB:.0f} MB"


def npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "<f4") -> bytes:
    """A member of a `.npz` that says such a shape, and holds something else."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def bomb(path: Path, name: str, megabytes: int, extra: dict[str, bytes] | None = None) -> Path:
    """A zip of about a thousandth of what it unpacks to, written piece by piece."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open(name, "w", force_zip64=True) as member:
            member.write(npy((megabytes * MB // 4,)))
            for _ in range(megabytes):
                member.write(bytes(MB))
        for inner, content in (extra or {}).items():
            file.writestr(inner, content)
    return path


@pytest.fixture(scope="module")
def zeros(tmp_path_factory) -> Path:
    """200 MB of zeros in 0.2 MB."""
    return bomb(tmp_path_factory.mktemp("bombs") / "zeros.npz", "params/img/embedding/kernel.npy", 200)


def test_an_archive_of_zeros_is_refused_by_its_size(zeros: Path):
    assert zeros.stat().st_size < MB
    with (
        in_little_memory(),
        pytest.raises(
            UserError,
            match=r"zeros\.npz of 0\.2 MB would unpack to 209\.7 MB, more than 20 times its size: no weights do",
        ),
    ):
        big_vision_layout.read(zeros)


def test_what_is_no_model_is_refused_by_its_names_before_it_is_unpacked(tmp_path):
    path = tmp_path / "other.npz"
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {f"layer{i}": rng.standard_normal((MB, 4)).astype(np.float32) for i in range(2)}
    np.savez(path, **arrays)
    with in_little_memory(), pytest.raises(UserError, match="img is no transformer of big_vision's: it lacks"):
        big_vision_layout.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((2**40,)), r"'a\.npy' says that it has 4,398,046,511,104 bytes, and has 0"),
        (npy((2**62, 2**62)), "says that it has .* bytes, and has 0"),
        (npy((4,), bytes(12)), "says that it has 16 bytes, and has 12"),
        (npy((-4, -1), bytes(16)), "says that it has 16 bytes, and has 16"),
        (npy((), bytes(8), "|O"), "holds pickled objects of Python"),
        (b"no array", "can't be read as arrays"),
        (b"", "can't be read as arrays"),
        (b"\x93NUMPY\x07\x00", "is of version"),
    ],
    ids=["huge", "beyond", "short", "negative", "objects", "text", "empty", "version"],
)
def test_heads_that_lie_are_told(content, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", content)
    with in_little_memory(), pytest.raises(UserError, match=message):
        archives.npz_table(tmp_path / "a.npz", lambda name: False)


def test_broken_zips_are_told(zeros: Path, tmp_path):
    whole = zeros.read_bytes()
    for cut in (b"", b"PK\x03\x04", whole[: len(whole) // 2], whole[:-10]):
        (tmp_path / "cut.npz").write_bytes(cut)
        with pytest.raises(UserError, match=r"cut\.npz can't be read as arrays: "):
            big_vision_layout.read(tmp_path / "cut.npz")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.npy", npy((4,), bytes(16)))
    with pytest.raises(UserError, match=r"'a\.npy' is packed in a way that isn't read"):
        big_vision_layout.read(tmp_path / "odd.npz")
    np.savez(tmp_path / "flipped.npz", a=np.ones(100))
    content = bytearray((tmp_path / "flipped.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"can't be read as arrays: it is damaged, or no \.npz \(Bad CRC-32"):
        archives.npz(tmp_path / "flipped.npz", {"a": archives.Head((100,))})


def test_whole_archives_come_back(tmp_path):
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "c": np.float32(3), "opt/x": np.zeros(3), "e": np.zeros((0, 2))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        table = archives.npz_table(tmp_path / "a.npz", lambda name: name.startswith("opt/"))
        assert {name: entry.shape for name, entry in table.items()} == {"a/b": (2, 3), "c": (), "e": (0, 2)}
        found = archives.npz(tmp_path / "a.npz", table)
        assert found.keys() == table.keys()
        np.testing.assert_array_equal(found["a/b"], arrays["a/b"])


def test_pytorch_s_zip_is_looked_at_before_it_is_opened(tmp_path):
    pytest.importorskip("torch")
    bomb(tmp_path / "pytorch_model.bin", "archive/data/0", 200, {"archive/data.pkl": b"", "archive/version": b"3\n"})
    with in_little_memory(), pytest.raises(UserError, match=r"would unpack to 209\.7 MB, more than 20 times its size"):
        weight_files.read(tmp_path)


def test_one_number_that_pytorch_repeats_is_no_array(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1).expand(2**30)}, tmp_path / "pytorch_model.bin")  # 4 GB of a kilobyte
    with in_little_memory(), pytest.raises(UserError, match=r"would unpack to 4,295\.0 MB"):
        weight_files.read(tmp_path)
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="'a' is no plain array but sparse, or quantized"):
        weight_files.read(tmp_path)
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    assert weight_files.read(tmp_path)["a"].tolist() == [1, 1, 1]


def test_a_vocabulary_that_unpacks_without_end_is_cut_off(tmp_path, monkeypatch):
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.GzipFile(path, "wb") as file:
        for _ in range(100):
            file.write(bytes(MB))
    with pytest.raises(UserError, match=r"\.txt\.gz would unpack to more than 67,108,864 bytes, and isn't read"):
        tokenizer_json(path)
    for content in (b"no gzip", path.read_bytes()[:500]):
        path.write_bytes(content)
        with pytest.raises(UserError):
            tokenizer_json(path)
    path.write_bytes(gzip.compress(b"abc"))
    assert archives.gunzip(path, most=3) == b"abc"
    with pytest.raises(UserError, match="more than 2 bytes"):
        archives.gunzip(path, most=2)


def test_the_header_of_safetensors_tells_the_shapes(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int32)}, tmp_path / "a.safetensors")
    table = archives.safetensors_table(tmp_path / "a.safetensors")
    assert {name: entry.shape for name, entry in table.items()} == {"a": (2, 3), "b": ()}
    for content in (b"", b"\xff" * 8, (2**60).to_bytes(8, "little") + b"{}", b'\x02\0\0\0\0\0\0\0{"'):
        (tmp_path / "b.safetensors").write_bytes(content)
        with in_little_memory(), pytest.raises(UserError, match=r"b\.safetensors can't be read: "):
            archives.safetensors_table(tmp_path / "b.safetensors")
