"""The stories of `emoji_stories`: who plays the roles of which plot. All choices are drawn by hashes.

Stories come in twins, of one plot and the same emoji in reverse order: who acts first in one acts last in the other.
So to know which emoji act doesn't tell twins apart, and each emoji acts as often in one container as in the other.
Splits have emoji of their own; or the same few (`familiar`), and plots of their own.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmjax.data.datasets.asked_emoji.things import Thing, colourless_things
from mmjax.data.datasets.emoji_stories.drawing import TONES
from mmjax.data.datasets.emoji_stories.familiar import familiar_things, split_of_plot
from mmjax.data.datasets.emoji_stories.grammar import ROLES, Plot, StoryEvent, drawn_plot, hash_choice
from mmjax.data.datasets.emoji_stories.narration import story_voice
from mmjax.data.datasets.spoken_emoji.catalogue import Utterance, hashed
from mmjax.data.datasets.tagged_emoji.kinds import KINDS, named_kind
from mmjax.data.video_files import Container
from mmjax.errors import UserError

# Kinds of events with the groups of who acts (and of who is met) that no training story has, by the names of
# `tagged_emoji.kinds`. Training has each of these kinds with four of the five groups, and whom it doesn't let meet
# another one is met by it.
HELD_OUT = frozenset(
    {
        ("move", "NATURE"),
        ("grow", "TRAVEL"),
        ("shrink", "PERSON"),
        ("turn", "FOOD"),
        ("leave", "OBJECT"),
        ("meet", "NATURE", "TRAVEL"),
        ("meet", "FOOD", "PERSON"),
        ("meet", "OBJECT", "NATURE"),
        ("meet", "PERSON", "OBJECT"),
        ("meet", "TRAVEL", "FOOD"),
    }
)
_LENGTHS = range(29, 35)  # frames of an event: 2.4 to 2.8 s
_NAME = 14  # letters, at most
_PLURAL = re.compile(r"(?<![su])s$")
_RARE = 16  # emoji that a story draws from
_ATTEMPTS = 1_000  # at a pair of twins
_CHOICE = 8  # of so many that would do, the one is taken that evens out which events follow each other, and who meets


@dataclass(frozen=True)
class Story:
    """A story. lengths: frames of each event; tone: of the background; late: its sound is shifted, where that is done.

    novel: it has one of `HELD_OUT`.
    """

    id: str
    split: str
    plot: Plot
    cast: tuple[Thing, ...]
    lengths: tuple[int, ...]
    tone: int
    voice: Utterance
    late: bool
    container: Container
    novel: bool

    @property
    def pair(self) -> str:
        """The same of a story and its twin, and of no other."""
        return f"{self.split}-{int(self.id.rpartition('-')[2]) // 2}"

    @property
    def names(self) -> list[str]:
        """The name of each role."""
        return [thing.name for thing in self.cast]

    @property
    def emoji(self) -> list[str]:
        """The id of each role's emoji."""
        return [thing.id for thing in self.cast]


def actors(limit: int | None = None) -> list[Thing]:
    """The emoji that may act: of five of Unicode's groups, with a singular name of one or two words, by id.

    limit: of each of `asked_emoji`'s words only so many in each split, drawn by hash. Raises ImportError where a
    package of the extra `demo` is missing.
    """
    return [thing for thing in colourless_things(limit) if named_kind(thing.word) and _plain(thing)]


def planned_stories(
    counts: Mapping[str, int], events: tuple[int, int], limit: int | None = None, familiar: int | None = None
) -> dict[str, list[Story]]:
    """The stories of each split, twins one after the other. Those of "train" have nothing held out; in other splits
    every other pair of twins has.

    Args:
        counts: how many of each split: even numbers.
        events: the least and the most that a story has.
        limit: of each word for emoji (`asked_emoji`) only so many in a split.
        familiar: the same so many emoji act in all splits, two in a story. Then nothing is held out but plots: no two
            splits share one.

    Raises:
        UserError: a number is odd, familiar is below 2, or a split has too few emoji.
        ImportError: a package of the extra `demo` is missing.
    """
    if familiar is not None and familiar < 2:
        raise UserError(f"emoji_stories: familiar={familiar} must be at least 2: a story has two emoji")
    found = actors(limit)
    if familiar is not None:
        known = familiar_things(found, familiar)
        return {split: _of_split(split, count, known, events, familiar=True) for split, count in counts.items()}
    return {
        split: _of_split(split, count, [thing for thing in found if thing.split == split], events, familiar=False)
        for split, count in counts.items()
    }


def groups_of(event: StoryEvent, cast: Sequence[Thing]) -> tuple[str, ...]:
    """The kind of an event, with the group of who acts, and of whom it meets: as `HELD_OUT` has them."""
    roles = [role for role in (event.actor, event.other) if role is not None]
    return event.kind, *(_group(cast[role]) for role in roles)


def _of_split(split: str, count: int, pool: Sequence[Thing], events: tuple[int, int], familiar: bool) -> list[Story]:
    if count % 2:
        raise UserError(f"emoji_stories: {count} stories of {split!r} can't be told in twins: take an even number")
    drawn: Counter[str] = Counter()
    seen: Counter[tuple[str, ...]] = Counter()
    stories: list[Story] = []
    for pair in range(count // 2):
        key = f"{split}-{pair:05d}"
        novel = split != "train" and pair % 2 == 1
        found = _familiar(key, split, pool, drawn, events) if familiar else _fitting(key, pool, drawn, events, novel)
        if not found and familiar:
            raise UserError(
                f"emoji_stories: {len(pool)} emoji have no story of {split!r} in {_ATTEMPTS}: raise familiar or events"
            )
        if not found:
            raise UserError(
                f"emoji_stories: of {len(pool)} emoji of the split {split!r} no story in {_ATTEMPTS} "
                f"{'has' if novel else 'lacks'} what is held out: raise limit"
            )
        counted = _counted_by_name if familiar else _counted
        plot, cast = min(found, key=lambda each: _load(counted(*each), seen))
        drawn.update(thing.id for thing in cast)
        seen.update(counted(plot, cast))
        late = hashed(f"stories/{key}/late") % 2  # one of both twins
        for twin, order in enumerate((cast, cast[::-1])):
            novel = not familiar and _is_novel(plot, order)
            stories.append(_told(f"{split}-{2 * pair + twin:05d}", split, plot, order, late == twin, novel))
    return stories


def _fitting(
    key: str, pool: Sequence[Thing], drawn: Counter[str], events: tuple[int, int], novel: bool
) -> list[tuple[Plot, tuple[Thing, ...]]]:
    """Plots with their casts, whose twins both have something held out, or neither."""
    number = events[0] + hashed(f"stories/{key}/events") % (events[1] - events[0] + 1)
    roles = hash_choice([n for n in ROLES if n <= max(ROLES[0], number - 2)], f"{key}/roles")
    rare = _rarest(key, pool, drawn)
    found = []
    for attempt in range(_ATTEMPTS):
        plot = drawn_plot(f"{key}.{attempt}", roles, number)
        cast = _cast(f"{key}.{attempt}", roles, rare)
        if plot and cast and all(_is_novel(plot, order) == novel for order in (cast, cast[::-1])):
            found.append((plot, cast))
            if len(found) == _CHOICE:
                break
    return found


def _familiar(
    key: str, split: str, pool: Sequence[Thing], drawn: Counter[str], events: tuple[int, int]
) -> list[tuple[Plot, tuple[Thing, ...]]]:
    """Plots of the split with their casts of two: so whoever appears does so in few of the events."""
    number = events[0] + hashed(f"stories/{key}/events") % (events[1] - events[0] + 1)
    rare = _rarest(key, pool, drawn)
    found = []
    for attempt in range(_ATTEMPTS):
        plot = drawn_plot(f"{key}.{attempt}", ROLES[0], number)
        cast = _cast(f"{key}.{attempt}", ROLES[0], rare)
        if plot and cast and split_of_plot(plot) == split:
            found.append((plot, cast))
            if len(found) == _CHOICE:
                break
    return found


def _rarest(key: str, pool: Sequence[Thing], drawn: Counter[str]) -> list[Thing]:
    """Those that were drawn least often: so each occurs, and all about equally often."""
    return sorted(pool, key=lambda thing: (drawn[thing.id], hashed(f"stories/{key}/rare/{thing.id}")))[:_RARE]


def _cast(key: str, roles: int, pool: Sequence[Thing]) -> tuple[Thing, ...] | None:
    """Emoji whose names share no word; None where there aren't enough."""
    cast: list[Thing] = []
    for thing in sorted(pool, key=lambda thing: hashed(f"stories/{key}/cast/{thing.id}")):
        if not any(set(thing.name.split()) & set(other.name.split()) for other in cast):
            cast.append(thing)
        if len(cast) == roles:
            return tuple(cast)
    return None


def _is_novel(plot: Plot, cast: Sequence[Thing]) -> bool:
    return any(groups_of(event, cast) in HELD_OUT for event in plot.events)


def _counted(plot: Plot, cast: Sequence[Thing]) -> list[tuple[str, ...]]:
    """The pairs that are to be even: of kinds of events that follow each other, and of groups that meet."""
    meetings = [event for event in plot.events if event.kind == "meet"]
    return [*plot.following(), *(groups_of(event, order) for event in meetings for order in (cast, cast[::-1]))]


def _counted_by_name(plot: Plot, cast: Sequence[Thing]) -> list[tuple[str, ...]]:
    """The same, and whoever does what: so a name doesn't tell a verb, nor a verb a name."""
    does = [(event.kind, event.way, order[event.actor].id) for event in plot.events for order in (cast, cast[::-1])]
    return [*_counted(plot, cast), *does]


def _load(counted: Sequence[tuple[str, ...]], seen: Counter[tuple[str, ...]]) -> float:
    return sum(seen[each] for each in counted) / len(counted) if counted else float("inf")


def _told(name: str, split: str, plot: Plot, cast: tuple[Thing, ...], late: bool, novel: bool) -> Story:
    lengths = tuple(hash_choice(_LENGTHS, f"{name}/length/{place}") for place in range(len(plot.events)))
    return Story(
        id=name,
        split=split,
        plot=plot,
        cast=cast,
        lengths=lengths,
        tone=hashed(f"stories/{name}/tone") % len(TONES),
        voice=story_voice(name, split),
        late=late,
        container="webm" if int(name[-1]) % 2 else "mp4",
        novel=novel,
    )


def _plain(thing: Thing) -> bool:
    words = thing.name.split()
    plain = 1 <= len(words) <= 2 and len(thing.name) <= _NAME and "-" not in thing.name
    busy = thing.word == "person" and thing.name.endswith("ing")  # "man running" already does something
    return plain and not busy and not _PLURAL.search(thing.name)


def _group(thing: Thing) -> str:
    group = named_kind(thing.word)
    assert group in KINDS
    return group
