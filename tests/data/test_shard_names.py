"""Patterns of shards: the names that they stand for, in their order, by number."""

import itertools
import sys

import pytest

from mmjax.data.shard_names import ShardNames
from mmjax.errors import UserError


def test_braces_count_and_name() -> None:
    names = ShardNames("x/{a,bb}-{008..011}.tar")
    wanted = [f"x/{a}-{n:03}.tar" for a, n in itertools.product(["a", "bb"], range(8, 12))]
    assert [*names] == wanted
    assert [names[i] for i in range(len(names))] == wanted
    assert (names.folder, len(ShardNames("x/one.tar")), [*ShardNames("x/one.tar")]) == ("x/", 1, ["x/one.tar"])
    with pytest.raises(IndexError):
        names[8]
    with pytest.raises(UserError, match=r"\{9\.\.1\} counts backwards"):
        ShardNames("x/{9..1}.tar")


def test_stars_are_the_files_that_there_are(tmp_path) -> None:
    for name in ("b/2.tar", "b/10.tar", "a/1.tar", "a/1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ShardNames(f"{tmp_path}/*/*.tar")
    assert [*names] == [f"{tmp_path}/{name}" for name in ("a/1.tar", "b/10.tar", "b/2.tar")]
    assert names.folder == f"{tmp_path}/"
    assert ShardNames(f"{tmp_path}/{{b,a}}/*.tar")[0].endswith("b/10.tar")


def test_many_names_take_no_memory() -> None:
    names = ShardNames("gs/{0000000..9999999}.tar")
    assert (len(names), names[1_234_567]) == (10_000_000, "gs/1234567.tar")
    assert sum(sys.getsizeof(value) for value in vars(names).values()) < 2_000
