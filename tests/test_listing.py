"""The list of checkpoints says of each what it is, and whether it is whole."""

import io
import re

import pytest
from rich.console import Console

from mmjax.errors import UserError
from mmjax.listing import listing
from tests.trained import Trained


def shown(workdir) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(listing(workdir))
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_each_checkpoint_has_a_line_and_a_damaged_one_says_so(trained_copy: Trained):
    head, *lines = shown(trained_copy.workdir).splitlines()
    assert re.match(r"step +saved +size +loss +validation retrieval/audio->image/R@1 +test ret", head)
    assert [line.split()[0] for line in lines] == ["8", "16", "24"]
    assert all(re.search(r" 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d +[\d.]+ [kM]B .* yes *$", line) for line in lines)
    assert re.search(r"[kM]B +\d+\.\d{3} +\d\.\d{3} +\d\.\d{3} +yes", lines[2])  # its loss, and of its evaluations
    (trained_copy.workdir / "checkpoints/16/default/_METADATA").unlink()
    assert "no: default/_METADATA is missing" in shown(trained_copy.workdir).splitlines()[2]


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there are no checkpoints in"):
        listing(tmp_path)
