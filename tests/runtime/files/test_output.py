"""Files and folders that are written: whole or not at all, and readable by whom the umask says."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.errors import UserError
from mmjax.runtime.files import output


@pytest.fixture(params=[0o022, 0o007, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def test_the_umask_decides_who_reads_it(tmp_path, umask):
    output.write(tmp_path / "inner" / "a.txt", "ä")
    assert (tmp_path / "inner" / "a.txt").read_bytes() == "ä".encode()
    assert mode(tmp_path / "inner" / "a.txt") == 0o666 & ~umask
    with output.replacing(tmp_path / "b.safetensors") as part:
        save_file({"x": np.zeros(2)}, part)  # which is its owner's alone in some versions
    assert mode(tmp_path / "b.safetensors") == 0o666 & ~umask
    with output.replacing_folder(tmp_path / "folder") as part:
        (part / "within").mkdir()
        save_file({"x": np.zeros(2)}, part / "within" / "c.safetensors")
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "within") == 0o777 & ~umask
    assert mode(tmp_path / "folder" / "within" / "c.safetensors") == 0o666 & ~umask


def test_what_is_no_content_leaves_what_was_there(tmp_path):
    output.write(tmp_path / "deep" / "a.model", b"first")
    with pytest.raises(TypeError):
        output.write(tmp_path / "deep" / "a.model", 5)  # type: ignore[arg-type]
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"first"]


def test_what_fails_leaves_what_was_there(tmp_path):
    output.write(tmp_path / "a", b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    for how, name in ((output.replacing, "a"), (output.replacing_folder, "folder")):
        with pytest.raises(ZeroDivisionError):
            _fails(how(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "folder", "kept"]
    with output.replacing_folder(tmp_path / "folder") as part:
        (part / "other").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["other"]


def _fails(opened):
    with opened as part:
        (part / "other" if part.is_dir() else part).write_bytes(b"new")
        raise ZeroDivisionError


def test_what_cannot_be_written_is_told_beforehand(tmp_path):
    with pytest.raises(UserError, match=r"no/a\.json can't be written: there is no folder .*no"):
        output.check_writable(tmp_path / "no" / "a.json")
    with pytest.raises(UserError, match="can't be written: it is a folder, name a file in it"):
        output.check_writable(tmp_path)
    output.check_writable(tmp_path / "a.json")
    output.check_writable(None)


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", Path("gs://bucket/run"), "s3://b", "file:///tmp/run", "GS://b/c"], ids=str
)
def test_an_address_is_no_place_to_write_to(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"--workdir {path}: that is an address, .* mount the bucket"):
        output.local(path, "--workdir")
    for write in (lambda: output.write(path, ""), lambda: output.check_writable(path), lambda: _folder(path)):
        with pytest.raises(UserError, match="that is an address"):
            write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/mnt/bucket/run", "runs/a:b", "a:", "C:/runs", "./gs://x"])
def test_a_path_of_this_machine_is_taken_as_it_is(path):
    assert output.local(path, "--workdir") == Path(path)


def _folder(path: str | Path) -> None:
    with output.replacing_folder(path):
        pass
