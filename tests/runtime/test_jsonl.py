"""Lines of a run: what a copy of an earlier time gives back, and what it leaves alone."""

from mmjax.runtime import jsonl

COPIED = [{"step": 1, "loss": 3}, {"step": 2, "loss": 2}, {"step": 2, "split": "test", "top1": 0.5}]
LATER = [{"step": 2, "split": "validation", "top1": 0.25}]


def key(line):
    return line["step"], line.get("split")


def test_lines_that_were_lost_come_back_and_later_ones_stay_behind_them():
    assert jsonl.completed([*COPIED, *LATER], COPIED, key) == ([*COPIED, *LATER], [])
    assert jsonl.completed(LATER, COPIED, key) == ([*COPIED, *LATER], COPIED)
    assert jsonl.completed([COPIED[0], COPIED[2], *LATER], COPIED, key) == ([*COPIED, *LATER], [COPIED[1]])
    assert jsonl.completed([], COPIED, key) == (COPIED, COPIED)
    assert jsonl.completed(LATER, [], key) == (LATER, [])


def test_of_a_line_that_both_have_the_copy_counts():
    changed = [COPIED[0] | {"loss": 9}, *COPIED[1:]]
    assert jsonl.completed(changed, COPIED, key) == (COPIED, [COPIED[0]])


def test_what_was_found_twice_is_no_damage():
    twice = [*COPIED, COPIED[2] | {"top1": 0.75}]
    assert jsonl.completed(twice, COPIED, key) == (twice, [])


def test_what_is_damaged_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 3}\n\xff\xfe{"step": 2}\n{"step": "3"}\n[4]\n{"step": 5}\n{"step": 6, "lo')
    assert jsonl.read(path) == [{"step": 1, "loss": 3}, {"step": 5}]
    assert jsonl.read(tmp_path / "none") == []
