"""The sentences of `tagged_emoji`, and the emoji beside each. All choices are drawn by hashes.

A sentence names two things. One has its name, and isn't in the picture; the other is in the picture, behind a nonce
name that anything may have. Each sentence stands there five times, with an emoji of each kind: its words say nothing of
what the nonce name is. And the emoji of a picture stands beside names of all kinds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmjax.data.datasets.asked_emoji.things import Thing, colourless_things
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.data.datasets.tagged_emoji.kinds import KINDS, named_kind, tagged
from mmjax.errors import UserError

NONCES = ("dax", "wug", "blicket", "tulver", "zib fendle", "mip toma", "gorp tiv", "lun kezzer")
FORMS = (
    "i saw a … beside the …",
    "the … and the … are here",
    "who put my … on your … ?",
    "this … is older than that …",
    "we found a … but no …",
    "look , a … under a …",
    "not every … is a …",
    "the … came before the …",
    "draw a … , then a …",
    "is it my … or your … ?",
)


@dataclass(frozen=True)
class Sentence:
    """A sentence beside a picture.

    emoji: the picture's. kind: what it is. other: the kind of what is named. form: the sentence with the nonce name,
    and … for the other. words, tags: as many of each.
    """

    emoji: str
    kind: str
    other: str
    form: str
    words: tuple[str, ...]
    tags: tuple[str, ...]


def planned_sentences(counts: Mapping[str, int], limit: int | None = None) -> dict[str, list[Sentence]]:
    """The sentences of each split. counts: how many different ones it has; each stands there with an emoji of every
    kind. limit: of each word for emoji (`asked_emoji`) only so many in a split.

    Raises:
        UserError: a split has no emoji of some kind that has a name, and another beside it.
        ImportError: a package of the extra `demo` is missing.
    """
    found = [(kind, thing) for thing in colourless_things(limit) if (kind := named_kind(thing.word)) is not None]
    return {
        split: _of_split(split, count, {k: [t for kind, t in found if kind == k and t.split == split] for k in KINDS})
        for split, count in counts.items()
    }


def _of_split(split: str, count: int, pool: Mapping[str, Sequence[Thing]]) -> list[Sentence]:
    for kind, some in pool.items():
        if len(some) < 2 or not any(thing.name for thing in some):
            raise UserError(
                f"tagged_emoji: the split {split!r} has {len(some)} emoji of the kind {kind}, and it takes two, one of "
                "them with a name: raise limit"
            )
    seen: Counter[tuple[str, str]] = Counter()  # by emoji and what is named beside it: the kind, or "" for all
    named: Counter[str] = Counter()
    made = []
    for number in range(count):
        key, other = f"tagged/{split}-{number:04d}", list(KINDS)[number % len(KINDS)]
        known = [thing for thing in pool[other] if thing.name]
        least = min(named[each.id] for each in known)
        thing = _first([each for each in known if named[each.id] == least], f"{key}/name")
        named[thing.id] += 1
        form, nonce = (_one(texts, f"{key}/{what}") for texts, what in ((FORMS, "form"), (NONCES, "nonce")))
        first = hashed(f"{key}/first") % 2 == 0  # whether the nonce name comes first
        for kind, some in pool.items():
            free = [each for each in some if each is not thing]
            least = min((seen[each.id, other], seen[each.id, ""]) for each in free)
            equal = [each for each in free if (seen[each.id, other], seen[each.id, ""]) == least]
            shown = _first(equal, f"{key}/picture")
            seen[shown.id, other] += 1
            seen[shown.id, ""] += 1
            pair = [tagged(nonce, kind), tagged(thing.name, other)]
            words, tags = zip(*_filled(form, pair if first else pair[::-1]), strict=True)
            blank = form.replace("…", nonce, 1) if first else nonce.join(form.rsplit("…", 1))
            made.append(Sentence(shown.id, kind, other, blank, words, tags))
    return made


def _filled(form: str, names: Sequence[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The words of a form, each with its tag, its two places filled by names."""
    left = iter(names)
    return [pair for word in form.split() for pair in (next(left) if word == "…" else [(word, "O")])]


def _first(some: Sequence[Thing], key: str) -> Thing:
    return min(some, key=lambda each: hashed(f"{key}/{each.id}"))


def _one(texts: Sequence[str], key: str) -> str:
    return texts[hashed(key) % len(texts)]
