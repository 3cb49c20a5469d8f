"""The questions that can be asked about a scene of `asked_emoji`, with their answers."""

from collections.abc import Iterator
from dataclasses import dataclass

from mmjax.data.datasets.asked_emoji.answers import NUMBERS, WORDS
from mmjax.data.datasets.asked_emoji.scenes import Placed, Scene
from mmjax.data.datasets.spoken_emoji.catalogue import hashed

_ROWS, _COLUMNS = ("top", "bottom"), ("left", "right")
_NEIGHBOURS = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


@dataclass(frozen=True)
class Asked:
    """A question about a picture, by the id of its scene. `form`: the question without the words for an emoji, where it
    speaks of one.
    """

    picture: str
    kind: str
    form: str
    question: str
    answer: str


def asked_alone(scene: Scene) -> Iterator[Asked]:
    """The questions of fixed words: colours, groups, what there is, and how many of it."""
    words = [placed.thing.word for placed in scene.placed]

    def asked(kind: str, question: str, answer: str) -> Asked:
        return Asked(scene.id, kind, question, question, answer)

    for placed in scene.placed:
        place, thing = f"{_ROWS[placed.row]} {_COLUMNS[placed.column]}", placed.thing
        yield asked("group", f"what is at the {place}?", thing.word)
        if thing.colour is not None:
            yield asked("colour", f"what colour is the emoji at the {place}?", thing.colour)
            if WORDS[thing.word].one and words.count(thing.word) == 1:
                yield asked("colour", f"what colour is the {thing.word}?", thing.colour)
    yield asked("count", "how many emoji are there?", NUMBERS[len(words) - 1])
    for word, spoken in WORDS.items():
        if spoken.one:
            yield asked("presence", f"is there {spoken.one}?", "yes" if word in words else "no")
        if spoken.many and word in words:
            yield asked("count", f"how many {spoken.many} are there?", NUMBERS[words.count(word) - 1])


def asked_of_both(twins: tuple[Scene, Scene]) -> Iterator[tuple[Asked, Asked]]:
    """The questions that twins answer differently, as pairs: where an emoji is, and what is beside it.

    They speak of an emoji by the word for its group, where no other in the scene has it, or else by its name.
    """
    first, second = ({each.question: each for each in asked_of_places(scene)} for scene in twins)
    for question, asked in first.items():
        if question in second and second[question].answer != asked.answer:
            yield asked, second[question]


def asked_of_places(scene: Scene) -> Iterator[Asked]:
    """The questions of where an emoji is, and of what is beside it, whatever a twin would answer."""
    for placed in scene.placed:
        called = _called(placed, scene)
        if not called:
            continue

        def asked(kind: str, form: str, answer: str, *others: str, called: str = called) -> Asked:
            return Asked(scene.id, kind, form, form.replace("…", called, 1).replace("…", "".join(others)), answer)

        yield asked("side", "is the … on the left or on the right?", _COLUMNS[placed.column])
        yield asked("height", "is the … at the top or at the bottom?", _ROWS[placed.row])
        for other in scene.placed:
            if other is not placed and (named := _called(other, scene)):
                if other.column != placed.column:
                    form = "is the … to the left or to the right of the …?"
                    yield asked("beside", form, "left" if placed.column < other.column else "right", named)
                if other.row != placed.row:
                    form = "is the … above or below the …?"
                    yield asked("over", form, "above" if placed.row < other.row else "below", named)
        for where, (down, right) in _NEIGHBOURS.items():
            neighbour = scene.at(placed.row + down, placed.column + right)
            if neighbour is not None:
                yield asked("neighbour", f"what is {where} the …?", neighbour.thing.word)


def _called(placed: Placed, scene: Scene) -> str:
    """The words for an emoji, the same in both twins; "" where there are none that mean it alone."""
    thing, others = placed.thing, [other.thing for other in scene.placed if other is not placed]
    words = set(thing.name.split())
    named = thing.name and not any(
        words <= (theirs := set(other.name.split())) or theirs <= words for other in others if other.name
    )
    unique = WORDS[thing.word].one and all(other.word != thing.word for other in others)
    if named and (not unique or hashed(f"asked/called/{scene.id[:-2]}/{thing.id}") % 2):
        return thing.name
    return thing.word if unique else ""
