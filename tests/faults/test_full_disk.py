"""A disk that fills up in the middle of a run: it is told, nothing whole is lost, and with space the run goes on."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import saved
from tests.faults.conftest import LONG, Hung, resumed
from tests.faults.soak import Run, differences
from tests.multiprocess.launcher import Group
from tests.trained import UNJUDGED


@pytest.fixture
def disk(tmp_path: Path):
    """A disk of 64 MB of its own, in memory; mounting it takes a right that not every machine gives."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"can't mount a disk here: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_run_on_a_full_disk_stops_with_its_checkpoints_whole_and_goes_on_with_space(disk: Path, hung: Hung):
    """It ends as the run whose reader hung, bit for bit: they went on after different steps, so neither lost any."""
    run, ballast = Run(hung.table, disk / "run", *LONG, experiment=UNJUDGED), disk / "ballast"

    def fill(group: Group) -> None:
        group.wait_for(f"step {resumed(hung.ended) + 25}/100 ")  # of two saves since, the first one is whole
        with ballast.open("wb", buffering=0) as file:
            for size in (2**20, 2**12):
                with contextlib.suppress(OSError):
                    while True:  # until not a byte is left
                        file.write(bytes(size))

    ended = run.live(meanwhile=fill)
    assert ended.codes == [2], str(ended)
    (error,) = (line for line in ended.errors[0].splitlines() if line.startswith("error: "))
    assert "Traceback" not in ended.errors[0]
    assert "orbax" not in ended.errors[0]  # whose threads would tell all that failed, with a traceback each
    assert "No space left on device" in error or "No space for a checkpoint" in error, error
    assert str(run.workdir) in error
    assert " MB are free" in error
    checkpoints = saved(run.workdir)
    assert checkpoints
    assert not [each for each in checkpoints if each.problems]
    assert max(line["step"] for line in metrics.read(run.workdir)) < 100
    ballast.unlink()
    ended = run.live()
    assert ended.codes == [0], str(ended)
    assert resumed(ended) > resumed(hung.ended)
    assert differences(run.workdir, hung.run.workdir) == []
