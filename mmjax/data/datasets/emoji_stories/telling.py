"""Tells the stories of `emoji_stories`: a sentence for each event, the whole in two sentences, and subtitles."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from mmjax.data.datasets.emoji_stories.grammar import StoryEvent

_DOES = {
    "appear": "appears",
    "move": "moves",
    "meet": "meets",
    "grow": "grows",
    "shrink": "shrinks",
    "turn": "turns",
    "leave": "leaves",
}
_WHERE = {"left": " to the left", "right": " to the right", "up": " up", "down": " down", "": ""}


def sentence(event: StoryEvent, names: Sequence[str]) -> str:
    """An event as it is spoken, such as "the goat leaves to the left". names: that of each role."""
    return f"the {names[event.actor]} {_predicate(event, names)}"


def event_label(event: StoryEvent, names: Sequence[str]) -> str:
    """An event in as few words as possible, such as "goat leaves left"."""
    last = event.way if event.other is None else names[event.other]
    return " ".join(filter(None, (names[event.actor], _DOES[event.kind], last)))


def story_text(events: Sequence[StoryEvent], names: Sequence[str]) -> str:
    """All events in their order, in two sentences; who does two in a row is named once."""
    half = (len(events) + 1) // 2
    first, second = _joined(events[:half], names), _joined(events[half:], names)
    return f"{first[0].upper()}{first[1:]}." + (f" Then {second}." if second else "")


def webvtt(cues: Iterable[tuple[str, float, float]]) -> str:
    """Subtitles in the format WebVTT. cues: the sentence, its begin and its end in seconds, of each."""
    told = [f"{_clock(begin)} --> {_clock(end)}\n{said[0].upper()}{said[1:]}.\n" for said, begin, end in cues]
    return "\n".join(["WEBVTT\n", *told])


def _joined(events: Sequence[StoryEvent], names: Sequence[str]) -> str:
    told = []
    for actor, group in groupby(events, key=lambda event: event.actor):
        *others, last = (_predicate(event, names) for event in group)
        told.append(f"the {names[actor]} {', '.join(others)}{' and ' if others else ''}{last}")
    return ", then ".join(told)


def _predicate(event: StoryEvent, names: Sequence[str]) -> str:
    whom = "" if event.other is None else f" the {names[event.other]}"
    return f"{_DOES[event.kind]}{whom}{_WHERE[event.way]}"


def _clock(seconds: float) -> str:
    milliseconds = round(1_000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1_000:02d}.{rest % 1_000:03d}"
