"""A disk that fills up in the middle of a run: it is told, nothing whole is lost, and with space the run goes on."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import saved
from tests.faults.soak import Run, differences
from tests.faults.spoil import spoil
from tests.multiprocess.launcher import Group
from tests.tiny import write_shapes


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


def test_a_run_on_a_full_disk_stops_with_its_checkpoints_whole_and_goes_on_with_space(disk: Path, tmp_path: Path):
    table = write_shapes(tmp_path)
    spoil(table)
    overrides = ("steps=24", "save_every=2")
    run, ballast = Run(table, disk / "run", *overrides), disk / "ballast"

    def fill(group: Group) -> None:
        group.wait_for("step 8/24 ")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:  # until not a byte is left
                file.write(bytes(2**12))

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
    assert max(line["step"] for line in metrics.read(run.workdir)) < 24
    ballast.unlink()
    run.to_the_end()
    whole = Run(table, tmp_path / "whole", *overrides)
    whole.to_the_end()
    assert differences(run.workdir, whole.workdir) == []
