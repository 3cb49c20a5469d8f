"""Files and folders that are written: whole or not at all, and readable by whom the umask says."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.errors import UserError
from mmjax.runtime.files import output

PACKAGE = Path(output.__file__).parents[2]
# Who writes files by other means, and why nothing need be whole there at once.
NEW_FOLDER = "into a folder that takes its place when it is whole"
APPENDED = "lines are added at the end"
WRITERS = {
    "data/datasets/prepare.py": "a lock, which holds nothing",
    "data/index_files.py": "into the name that `replacing` gave",
    "data/prepare/prepare_videos.py": "a lock, which holds nothing",
    "data/token_store.py": "into the name that `replacing` gave",
    "data/video_files.py": "into memory",
    "evaluate/evaluators/gallery.py": "into the name that `replacing` gave",
    "inference/clustering/collected.py": "into the name that `replacing` gave",
    "interop/big_vision/layout.py": "into the name that `replacing` gave",
    "experiment/own_parts.py": "moves the code of a run before out of the way",
    "interop/bundle.py": NEW_FOLDER,
    "interop/hf/layout.py": NEW_FOLDER,
    "interop/hf/preprocessing.py": NEW_FOLDER,
    "interop/hf/tokenizer.py": NEW_FOLDER,
    "interop/open_clip/layout.py": NEW_FOLDER,
    "interop/open_clip/preprocessing.py": NEW_FOLDER,
    "interop/remote.py": "into a folder that goes away again",
    "interop/resolve.py": "into a folder that goes away again",
    "interop/sentence_transformers/modules.py": NEW_FOLDER,
    "interop/weight_files.py": NEW_FOLDER,
    "runtime/checkpoints.py": "moves what is damaged out of the way",
    "runtime/copies.py": "into a checkpoint, which Orbax names when it is whole",
    "runtime/files/digests.py": "into a folder that isn't whole without it",
    "inference/writing/caption_folder.py": APPENDED,
    "runtime/metrics.py": APPENDED,
    "train/bad_examples.py": APPENDED,
    "train/plan/picture.py": "into the name that `replacing` gave",
    "train/plan/quiet.py": "/dev/null",
}


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


def test_a_pipe_or_device_stays_and_is_given_the_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        output.write(tmp_path / "pipe", "numbers")
        assert reader.communicate(timeout=60)[0] == b"numbers"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()
    output.write("/dev/null", "numbers")
    assert Path("/dev/null").is_char_device()
    program = "from mmjax.runtime.files import output; output.write('/dev/stdout', 'numbers')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"numbers"


def test_one_helper_writes_files_and_replaces_them():
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if writes(path.read_text())}
    assert found - {"runtime/files/output.py"} == {*WRITERS}, (
        "output.write or output.replacing; or say in WRITERS why not"
    )


@pytest.mark.parametrize(
    "text", ["p.write_text('')", "os.replace(a, b)", "open(p, mode='w')", "p.open('ab')", "a.rename(b)", "f.savefig(p)"]
)
def test_another_way_to_write_is_found(text):
    assert writes(text)


def test_what_reads_is_no_writer():
    assert not writes(
        "open(p, 'rb').read().replace('a', 'b'); p.open(); p.open(encoding='utf-8'); opened.open('train')"
    )


def writes(text: str) -> bool:
    """Whether a program writes or moves files."""
    ways = {"write_text", "write_bytes", "savefig", "copyfile", "copyfileobj", "rename", "move", "save_file"}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ways or (name == "replace" and ast.unparse(node.func) == "os.replace"):
            return True
        modes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [arg.value for arg in modes if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if name == "open" and any({*mode} <= {*"wabxrt+"} and {*mode} & {*"wax"} for mode in modes):
            return True
    return False
