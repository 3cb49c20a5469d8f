import logging

import pytest

from mmjax.data.sources.splits import SplitNotFoundError, by_column, by_hash, connected, hashed_split
from mmjax.errors import UserError

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


def test_splits_of_a_column_are_found_in_any_case(caplog):
    column = ["train", "Train", "TEST ", "Val", "train"]
    assert by_column("t.csv", column, "train", {}) == [0, 1, 4]
    assert by_column("t.csv", column, "test", {}) == [2]
    assert by_column("t.csv", column, "validation", {"validation": "val"}) == [3]
    assert not caplog.records
    with pytest.raises(SplitNotFoundError, match=r"'validation': its column of splits holds .*Val,"):
        by_column("t.csv", column, "validation", {})


def test_rows_without_a_split_are_in_none_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        assert by_column("t.csv", ["train", None, "test", None], "train", {}) == [0]
    assert "t.csv: 2 of its 4 rows name no split, and are in none" in caplog.text


def test_a_translation_into_what_is_not_there_is_refused_whatever_is_opened():
    with pytest.raises(UserError, match=r"'vall'}, but its .* holds test, train, val; did you mean val\?"):
        by_column("t.csv", ["train", "val", "test"], "train", {"validation": "vall"})
    with pytest.raises(UserError, match="'val'}, but there is no column of splits, and the shares"):
        by_hash("t.csv", ["a"], [["a"]], "train", {"validation": "val"}, SHARES)


@pytest.mark.parametrize("shares", [{}, {"train": -1.0, "test": 2.0}, {"train": 0.0}])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(UserError, match=r"t\.csv: shares="):
        by_hash("t.csv", ["a"], [["a"]], "train", {}, shares)


def test_rows_are_connected_by_what_they_share_and_by_way_of_others():
    assert connected([["a"], ["b"], ["c", "b"], ["d"], ["a", "c"], ["e"]]) == [0, 0, 0, 3, 0, 5]
    assert connected([[], [], ["x"]]) == [0, 1, 2]


def test_rows_that_share_something_have_one_split_and_all_others_their_own():
    ids = [f"id {i}" for i in range(900)]
    shared = [[("id", id), ("image", i // 3)] for i, id in enumerate(ids)]
    found = {split: by_hash("t.csv", ids, shared, split, {}, SHARES) for split in SHARES}
    assert sorted(row for rows in found.values() for row in rows) == list(range(900))
    for rows in found.values():
        assert len({row // 3 for row in rows}) * 3 == len(rows)
    alone = [[("id", id), ("image", i)] for i, id in enumerate(ids)]
    for split in SHARES:
        rows = by_hash("t.csv", ids, alone, split, {}, SHARES)
        assert rows == [row for row, id in enumerate(ids) if hashed_split(id, SHARES) == split]


def test_the_order_of_the_rows_makes_no_difference():
    ids = [f"id {i}" for i in range(60)]
    shared = [[("image", i // 4), ("audio", i // 6)][: 1 + i % 2] for i in range(60)]
    found = {ids[row] for row in by_hash("t.csv", ids, shared, "train", {}, SHARES)}
    again = {ids[::-1][row] for row in by_hash("t.csv", ids[::-1], shared[::-1], "train", {}, SHARES)}
    assert found == again


def test_the_hash_is_that_of_before():
    """What has trained goes on with the split it had."""
    found = {i: hashed_split(f"{i}.png", SHARES) for i in range(55)}
    assert [i for i, split in found.items() if split == "validation"] == [21, 50, 51]
    assert [i for i, split in found.items() if split == "test"][:3] == [5, 18, 26]


def test_where_all_rows_share_one_sound_the_error_says_so():
    ids = ["a", "b", "c"]
    other = "test" if hashed_split("a", SHARES) == "train" else "train"
    with pytest.raises(SplitNotFoundError, match=r"no row in the split .*; of them 3 share pictures or sounds"):
        by_hash("t.csv", ids, [[id, "silence.wav"] for id in ids], other, {}, SHARES)
