import os
import sys

import pytest

from tests.benchmarks import start


def test_seconds_are_those_of_the_whole_process_and_of_what_it_waited_for():
    work = "import time\nwhile time.process_time() < 0.3: pass\n"
    assert start.ended([sys.executable, "-c", work])["cpu"] >= 0.3
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); print('{start.SAID} 1 s')"
    found = start.said(
        [sys.executable, "-c", f"{child}; import time; sys.stdout.flush(); time.sleep(60)"], {**os.environ}
    )
    assert found["cpu"] >= 0.3
    assert 0.3 <= found["wall"] < 50


def test_a_command_that_fails_is_no_figure():
    with pytest.raises(RuntimeError, match="failed with 3"):
        start.ended([sys.executable, "-c", "import sys; sys.exit(3)"])
    with pytest.raises(RuntimeError, match="took no step:\nwhy not"):
        start.said([sys.executable, "-c", "print('why not')"], {**os.environ})


def test_the_record_has_medians_beside_the_goals():
    runs = {"help": [{"wall": wall, "cpu": 0.1} for wall in (0.2, 0.9, 0.3)], "built": [{"wall": 20.0, "cpu": 30.0}]}
    assert start.summary(runs) == [
        {"what": "help", "runs": 3, "wall_seconds": 0.3, "cpu_seconds": 0.1, "goal_wall_seconds": 0.3},
        {"what": "built", "runs": 1, "wall_seconds": 20.0, "cpu_seconds": 30.0},
    ]
