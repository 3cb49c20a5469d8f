"""Files of others: what is no file, or too large, isn't opened, by no command."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.inference import model
from mmjax.runtime import checkpoints, jsonl, metrics
from mmjax.runtime.files import archives, digests, json_text, regular


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
    for read in (regular.content, json_text.text, json_text.read, jsonl.read, archives.check_zip, archives.gunzip):
        with pytest.raises(UserError, match=words):
            read(path)
    for table in (lambda path: archives.npz_table(path, lambda name: False), archives.safetensors_table):
        with pytest.raises(UserError, match=words):
            table(path)
    if kind != "folder":
        with pytest.raises(UserError, match=words):
            regular.check_inside(tmp_path)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (path := tmp_path / "hollow.json").open("wb") as file:
        file.truncate(2**40)  # which takes no disk
    with pytest.raises(UserError, match=r"has 1,099,511,627,776 bytes, more than the 268,435,456 that are"):
        json_text.read(path)
    path.write_bytes(b"12345")
    assert regular.content(path, 5) == b"12345"
    with pytest.raises(UserError, match="has 5 bytes, more than the 4 that are read"):
        regular.content(path, 4)
    with pytest.raises(FileNotFoundError):
        regular.content(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", OTHERS)
def test_no_command_waits_for_a_record_that_is_no_file(
    kind: str, tmp_path: Path, in_time: None, capsys: pytest.CaptureFixture[str]
) -> None:
    OTHERS[kind](tmp_path / "experiment.json")
    (tmp_path / checkpoints.DIRECTORY / "4").mkdir(parents=True)
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
        model.load(tmp_path)


@pytest.mark.parametrize("kind", OTHERS)
def test_nothing_waits_for_numbers_or_digests_that_are_no_files(kind: str, tmp_path: Path, in_time: None) -> None:
    OTHERS[kind](tmp_path / metrics.FILE)
    with pytest.raises(UserError, match=rf"metrics.jsonl is a {kind} and no file"):
        metrics.read(tmp_path)
    (step := tmp_path / checkpoints.DIRECTORY / "4").mkdir(parents=True)
    OTHERS[kind](step / digests.NAME)
    assert checkpoints.checkpoint_identity(tmp_path, 4) is None
    assert digests.problems(step) == ["digests.json can't be read"]  # pyright: ignore[reportArgumentType]
    (held := tmp_path / "held").mkdir()
    (held / "a").write_bytes(b"")
    digests.write(held)  # pyright: ignore[reportArgumentType]
    (held / "a").unlink()
    OTHERS[kind](held / "a")
    (problem,) = digests.problems(held)  # pyright: ignore[reportArgumentType]
    assert f"a is a {kind} and no file" in problem
