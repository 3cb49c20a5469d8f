"""The list of checkpoints says of each what it is, and whether it is whole."""

import io
import re

import pytest
from rich.console import Console

from mmjax.errors import UserError
from mmjax.runtime import metrics
from mmjax.train.checkpoint_table import checkpoint_listing
from tests.trained import Trained


def shown(workdir, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(checkpoint_listing(workdir))
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_each_checkpoint_has_a_line_and_a_damaged_one_says_so(trained_copy: Trained):
    over, head, *lines = shown(trained_copy.workdir).splitlines()
    assert over.split() == ["R@1", "R@1"]
    assert head.split() == ["step", "saved", "size", "loss", "(1)", "(2)", "whole"]
    assert [line.split()[0] for line in lines[:3]] == ["8", "16", "24"]
    assert all(re.search(r" 20\d\d-\d\d-\d\d \d\d:\d\d +[\d.]+ [kM]B .* yes *$", line) for line in lines[:3])
    assert re.search(r"[kM]B +\d+\.\d{3} +\d\.\d{3} +\d\.\d{3} +yes", lines[2])  # its loss, and of its evaluations
    of = "retrieval/audio->image/R@1"
    chances = ", ".join(["R@1 0.042", f"R@5 {5 / 24:.3f}", f"R@10 {10 / 24:.3f}", "median_rank 12.5"])
    assert lines[3:] == [
        f"(1) validation split, {of}: 24 sounds, among 24 pictures; at random {chances}",
        f"(2) test split, {of}: 22 sounds, among 24 pictures; at random {chances}",
    ]
    (trained_copy.workdir / "checkpoints/16/default/_METADATA").unlink()
    _, _, _, damaged, *_, below = shown(trained_copy.workdir).splitlines()
    assert re.search(r"^16 .* no *$", damaged)
    assert below == "step 16 isn't whole: default/_METADATA is missing"


def test_it_fits_a_terminal_whatever_its_metrics_are_called(trained_copy: Trained):
    long = "retrieval_by_the_first_caption_of_each_picture/image->text/share_of_captions_found"
    metrics.write_watched(trained_copy.workdir, 24, "photographs-of-another-country", {long: 0.125})
    (trained_copy.workdir / "checkpoints/8/default/_METADATA").unlink()
    said = shown(trained_copy.workdir, 80)
    assert max(map(len, said.splitlines())) <= 80
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["R@1", "R@1", "share_o…"]
    assert lines[4][-2:] == ["0.125", "yes"]
    whole = "".join(said.split())  # names are broken where a line ends
    assert f"(3)photographs-of-another-countrysplit,{long}" in whole
    assert "step8isn'twhole:default/_METADATAismissing" in whole


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there are no checkpoints in"):
        checkpoint_listing(tmp_path)
