"""What is left out of a video is noted once for each stretch."""

from mmjax.data.bad_example import BadExample
from mmjax.data.prepare.outcome import Outcome, Part


def test_stretches_that_touch_are_one():
    outcome = Outcome("v")
    stretches: list[tuple[Part, int, int]] = [
        ("frames", 0, 2), ("sound", 2, 4), ("frames", 2, 4), ("frames", 6, 8), ("sound", 6, 8),
    ]  # fmt: skip
    for part, start, end in stretches:
        outcome.leave_out(part, BadExample(f"at {start}", "undecodable"), start, end)
    outcome.leave_out("words", BadExample("none", "empty"))
    found = [(line["part"], line["start"], line["end"], line["reason"], line["kind"]) for line in outcome.lines()]
    assert found == [
        ("frames", 0, 4, "at 0", "undecodable"),
        ("sound", 2, 4, "at 2", "undecodable"),
        ("frames", 6, 8, "at 6", "undecodable"),
        ("sound", 6, 8, "at 6", "undecodable"),
        ("words", None, None, "none", "empty"),
    ]
