"""The plan puts each video into one shard, in order, by the files' sizes alone."""

from mmjax.data.paths import File
from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.plan import LEAST, MOST, MOST_VIDEOS, shards_of


def videos(*sizes: int) -> list[ListedVideo]:
    return [ListedVideo(str(number), File(""), None, None, size, {}) for number, size in enumerate(sizes)]


def counts(*sizes: int) -> list[int]:
    found = shards_of(videos(*sizes))
    assert [video for shard in found for video in shard] == videos(*sizes)
    return [len(shard) for shard in found]


def test_shards_are_full_at_a_megabyte_and_of_many_videos_at_a_share():
    assert counts(LEAST, LEAST, 1) == [1, 1, 1]
    assert counts(LEAST - 1, 5, -1, 7) == [2, 2]
    assert counts(*[10 * LEAST] * 2_048) == [2] * 1_024
    assert counts(*[MOST // 2] * 5_000) == [2] * 2_500  # more than a thousand of them, since none is larger
    assert counts(*[1] * (MOST_VIDEOS + 3)) == [MOST_VIDEOS, 3]
    assert counts(10 * MOST, 1) == [1, 1]
