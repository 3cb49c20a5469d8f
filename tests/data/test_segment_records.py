"""Records of segments come back as they were, and anything else is refused."""

import pytest

from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.segment_records import Segment, packed_segment, unpacked_segment
from mmjax.errors import UserError

WORDS = [TimedWord("é", 0.1, 1 / 3)]
WHOLE = Segment(
    "a/é.mp4", 3, 15.0, 20.0, [15.5, 16.5], [b"one", b"", b"three"], b"fLaC", WORDS, "test", {"n": [1, None]}
)


@pytest.mark.parametrize(
    "segment",
    [WHOLE, WHOLE._replace(audio=None, words=None, split=None, columns={}), WHOLE._replace(audio=b"", words=[])],
)
def test_a_record_comes_back(segment):
    assert unpacked_segment(packed_segment(segment)) == segment


def test_the_order_of_columns_changes_no_byte():
    one, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert packed_segment(WHOLE._replace(columns=one)) == packed_segment(WHOLE._replace(columns=other))


@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: r + b"x", lambda r: r[4:], lambda r: b""])
def test_bytes_that_are_no_record_are_refused(change):
    with pytest.raises(UserError, match="is no segment of a video"):
        unpacked_segment(change(packed_segment(WHOLE)))
