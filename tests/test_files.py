"""Files and folders that are written: whole or not at all, and readable by whom the umask says. What is no file isn't
opened."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax import archives, checkpoint, digests, files, json_text, lines, loading, metrics
from mmjax.__main__ import main
from mmjax.errors import UserError


@pytest.fixture(params=[0o022, 0o007, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def test_the_umask_decides_who_reads_it(tmp_path, umask):
    files.write(tmp_path / "inner" / "a.txt", "ä")
    assert (tmp_path / "inner" / "a.txt").read_bytes() == "ä".encode()
    assert mode(tmp_path / "inner" / "a.txt") == 0o666 & ~umask
    with files.replacing(tmp_path / "b.safetensors") as part:
        save_file({"x": np.zeros(2)}, part)  # which is its owner's alone in some versions
    assert mode(tmp_path / "b.safetensors") == 0o666 & ~umask
    with files.replacing_folder(tmp_path / "folder") as part:
        (part / "within").mkdir()
        save_file({"x": np.zeros(2)}, part / "within" / "c.safetensors")
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "within") == 0o777 & ~umask
    assert mode(tmp_path / "folder" / "within" / "c.safetensors") == 0o666 & ~umask


def test_what_is_no_content_leaves_what_was_there(tmp_path):
    files.write(tmp_path / "deep" / "a.model", b"first")
    with pytest.raises(TypeError):
        files.write(tmp_path / "deep" / "a.model", 5)  # type: ignore[arg-type]
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"first"]


def test_what_fails_leaves_what_was_there(tmp_path):
    files.write(tmp_path / "a", b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    for how, name in ((files.replacing, "a"), (files.replacing_folder, "folder")):
        with pytest.raises(ZeroDivisionError):
            _fails(how(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "folder", "kept"]
    with files.replacing_folder(tmp_path / "folder") as part:
        (part / "other").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["other"]


def _fails(opened):
    with opened as part:
        (part / "other" if part.is_dir() else part).write_bytes(b"new")
        raise ZeroDivisionError


def test_what_cannot_be_written_is_told_beforehand(tmp_path):
    with pytest.raises(UserError, match=r"no/a\.json can't be written: there is no folder .*no"):
        files.check_writable(tmp_path / "no" / "a.json")
    with pytest.raises(UserError, match="can't be written: it is a folder, name a file in it"):
        files.check_writable(tmp_path)
    files.check_writable(tmp_path / "a.json")
    files.check_writable(None)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/null")  # /dev/zero would fill the memory, were it opened


def listening(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


OTHERS: dict[str, Callable[[Path], None]] = {"pipe": pipe, "device": device, "socket": listening, "folder": Path.mkdir}


@pytest.fixture
def in_time() -> Iterator[None]:
    """Whatever waits is interrupted."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_file_is_named_and_not_opened(kind: str, tmp_path: Path, in_time: None) -> None:
    OTHERS[kind](path := tmp_path / "it")
    words = rf"it is a {kind} and no file, and isn't read"
    for read in (files.content, json_text.text, json_text.read, lines.read, archives.check_zip, archives.gunzip):
        with pytest.raises(UserError, match=words):
            read(path)
    for table in (lambda path: archives.npz_table(path, lambda name: False), archives.safetensors_table):
        with pytest.raises(UserError, match=words):
            table(path)
    if kind != "folder":
        with pytest.raises(UserError, match=words):
            files.check_inside(tmp_path)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (path := tmp_path / "hollow.json").open("wb") as file:
        file.truncate(2**40)  # which takes no disk
    with pytest.raises(UserError, match=r"has 1,099,511,627,776 bytes, more than the 268,435,456 that are"):
        json_text.read(path)
    path.write_bytes(b"12345")
    assert files.content(path, 5) == b"12345"
    with pytest.raises(UserError, match="has 5 bytes, more than the 4 that are read"):
        files.content(path, 4)
    with pytest.raises(FileNotFoundError):
        files.content(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", OTHERS)
def test_no_command_waits_for_a_record_that_is_no_file(
    kind: str, tmp_path: Path, in_time: None, capsys: pytest.CaptureFixture[str]
) -> None:
    OTHERS[kind](tmp_path / "experiment.json")
    (tmp_path / checkpoint.DIRECTORY / "4").mkdir(parents=True)
    words = f"experiment.json is a {kind} and no file, and isn't read"
    for command in (
        ["show", str(tmp_path)],
        ["train", str(tmp_path), "--workdir", str(tmp_path / "other")],
        ["evaluate", str(tmp_path), "--report", str(tmp_path / "page.html")],
        ["export", str(tmp_path), str(tmp_path / "exported")],
    ):
        assert main(command) == 2, command
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line or f"{tmp_path / 'experiment.json'} is neither a file nor a folder" in line, command
    with pytest.raises(UserError, match=r"experiment\.json is"):
        loading.load(tmp_path)


@pytest.mark.parametrize("kind", OTHERS)
def test_nothing_waits_for_numbers_or_digests_that_are_no_files(kind: str, tmp_path: Path, in_time: None) -> None:
    OTHERS[kind](tmp_path / metrics.FILE)
    with pytest.raises(UserError, match=rf"metrics.jsonl is a {kind} and no file"):
        metrics.read(tmp_path)
    (step := tmp_path / checkpoint.DIRECTORY / "4").mkdir(parents=True)
    OTHERS[kind](step / digests.NAME)
    assert checkpoint.identity(tmp_path, 4) is None
    assert digests.problems(step) == ["digests.json can't be read"]  # pyright: ignore[reportArgumentType]
    (held := tmp_path / "held").mkdir()
    (held / "a").write_bytes(b"")
    digests.write(held)  # pyright: ignore[reportArgumentType]
    (held / "a").unlink()
    OTHERS[kind](held / "a")
    (problem,) = digests.problems(held)  # pyright: ignore[reportArgumentType]
    assert f"a is a {kind} and no file" in problem


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", Path("gs://bucket/run"), "s3://b", "file:///tmp/run", "GS://b/c"], ids=str
)
def test_an_address_is_no_place_to_write_to(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"--workdir {path}: that is an address, .* mount the bucket"):
        files.local(path, "--workdir")
    for write in (lambda: files.write(path, ""), lambda: files.check_writable(path), lambda: _folder(path)):
        with pytest.raises(UserError, match="that is an address"):
            write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/mnt/bucket/run", "runs/a:b", "a:", "C:/runs", "./gs://x"])
def test_a_path_of_this_machine_is_taken_as_it_is(path):
    assert files.local(path, "--workdir") == Path(path)


def _folder(path: str | Path) -> None:
    with files.replacing_folder(path):
        pass
