"""A script without a main guard is told so before it starts a process, and does not start itself."""

import ast

import pytest

from mmjax.data.workers import main_guard
from tests import scripts

READS = """
import grain, numpy as np
from mmjax.data.workers.readers import Readers

class Row:
    def __call__(self, place):
        return {"index": np.full(2, place)}

def read():
    readers = Readers(grain.MapDataset.range(100).map(Row()), workers=2, prefetch=2)
    print([int(next(readers)["index"][0]) for _ in range(3)], flush=True)
    readers.close()

"""


def test_a_script_without_a_guard_is_refused_and_starts_nothing(tmp_path):
    ended = scripts.run(tmp_path / "mine.py", READS + "read()\n", seconds=60)
    line = (scripts.STARTED + READS).count("\n") + 1
    assert ended.complained.splitlines()[-1] == (
        f"mmjax.errors.UserError: {tmp_path}/mine.py, line {line}: data.workers=2 starts processes, and each of them "
        'runs the script again from its top. Put what the script does under `if __name__ == "__main__":`, or set '
        "data.workers=0, which reads by threads"
    )
    assert (ended.code, ended.starts, ended.left) == (1, 1, 0)


def test_what_could_not_be_foreseen_starts_no_more_than_once_each(tmp_path):
    """A thread doesn't tell which line of the script began it: the readers themselves then refuse to have readers."""
    script = READS + "import threading\nthread = threading.Thread(target=read)\nthread.start()\nthread.join()\n"
    ended = scripts.run(tmp_path / "mine.py", script, seconds=60)
    assert (ended.code, ended.said, ended.starts, ended.left) == (0, "[0, 1, 2]\n", 3, 0), ended.complained
    assert ended.complained.count("UserError: data.workers=2 starts processes, and each of them runs the script") == 2


@pytest.mark.parametrize(
    ("guard", "line", "holds"),
    [
        ('if __name__ == "__main__":\n    run()', 2, True),
        ('if "__main__" == __name__:\n    a()\nelse:\n    run()', 4, True),
        ('import x\nif __name__ == "__main__":\n    a()\nrun()', 4, False),
        ('if __name__ != "__main__":\n    exit()\nrun()', 3, True),
        ("if debug:\n    run()", 2, False),
        ('run()\nif __name__ == "__main__":\n    a()', 1, False),
    ],
)
def test_which_statements_guard(guard, line, holds):
    assert any(main_guard._guards(node, line) for node in ast.parse(guard).body) is holds
