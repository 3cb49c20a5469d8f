import dataclasses

import pytest

from mmjax.data.datasets.emoji_stories.drawing import TONES
from mmjax.data.datasets.emoji_stories.shortcuts import TOLD_BY, cast_told, check_cast_told
from mmjax.errors import UserError


@pytest.mark.parametrize("known", TOLD_BY)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_nothing_else_tells_who_acts(planned, split, known):
    assert cast_told(planned[split], known) == pytest.approx(1, abs=0.05 if known == "container" else 0.45)


def first(story):
    """A number by whoever appears first."""
    return int(story.emoji[0].partition("-")[0], 16)


SPOILT = {  # decided by one emoji
    "voice": lambda story: {"voice": dataclasses.replace(story.voice, voice=f"{first(story) % 4}")},
    "container": lambda story: {"container": ("mp4", "webm")[first(story) % 2]},
    "background": lambda story: {"tone": first(story) % len(TONES)},
    "length": lambda story: {"lengths": (12 * (first(story) % 6),)},
    "number of events": lambda story: {"plot": story.plot._replace(events=story.plot.events[: first(story) % 4])},
}


@pytest.mark.parametrize("known", TOLD_BY)
def test_each_shortcut_is_told(planned, known):
    alone = [dataclasses.replace(story, cast=story.cast[:1]) for story in planned["train"]]
    assert cast_told(alone, known) < 1.6
    spoilt = [dataclasses.replace(story, **SPOILT[known](story)) for story in alone]
    assert cast_told(spoilt, known) > 1.8
    with pytest.raises(
        UserError, match=rf"the {known} of a story of 'train' tells its emoji: .* \d\.\d\d times as often"
    ):
        check_cast_told({"test": planned["test"], "train": spoilt})


def test_what_is_planned_passes(planned):
    check_cast_told(planned)


def test_agreement_is_counted_among_stories_that_share_an_emoji_but_for_twins(planned):
    """Six stories, of which 0 and 1, 2 and 3, 4 and 5 are twins: 0 to 3 have the emoji a, 4 and 5 another one."""
    a, b = planned["train"][0].cast[0], planned["train"][2].cast[0]

    def told(tones):
        stories = [
            dataclasses.replace(story, cast=(a,) if n < 4 else (b,), tone=tones[n])
            for n, story in enumerate(planned["train"][:6])
        ]
        return cast_told(stories, "background")

    # Of the 12 pairs that are no twins 4 share an emoji.
    assert told([1, 1, 1, 1, 2, 2]) == pytest.approx((4 / 4) / (4 / 12))
    assert told([1, 1, 2, 2, 3, 3]) == 0
    assert told([1, 2, 1, 3, 1, 4]) == pytest.approx((1 / 4) / (3 / 12))
    assert cast_told(planned["train"][:2], "background") == 0
