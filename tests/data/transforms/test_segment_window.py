"""A prepared segment is a window: its sound a clip of all of it, its words with times."""

import json

import pytest

from mmjax.data import SegmentWindow
from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.transforms.clip import Clip


def record(**changed):
    words = json.dumps([{"word": "b", "start": 0.0, "end": 1.5}, {"word": "a", "start": 0.0, "end": 0.5}])
    return {"id": "v/2", "video": [b"1"], "audio": b"fLaC", "words": words, "start": 10.0, "end": 15.0, **changed}


def test_a_segment_is_a_window():
    given = record()
    found = SegmentWindow()(given, None)
    assert found["audio"] == Clip(b"fLaC", 0.0, 5.0, sound=True)
    assert found["words"] == [TimedWord("b", 0.0, 1.5), TimedWord("a", 0.0, 0.5)]  # in the order that they have
    assert found["video"] is given["video"]
    assert given == record()


def test_what_a_segment_lacks_it_lacks_then():
    found = SegmentWindow(words="said")(record(audio=None, words=None, said="[]"), None)
    assert (found["audio"], found["words"], found["said"]) == (None, None, [])


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"start": None}, "no start and end"), ({"words": "x"}, "no JSON"), ({"words": '[{"word": "a"}]'}, "'start'")],
)
def test_what_is_no_segment_is_bad(changed, told):
    with pytest.raises(BadExample, match=told):
        SegmentWindow()(record(**changed), None)
