"""Weights of the answers of `asked_emoji`: questions drawn by them have all answers of a form equally often."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.data.datasets.asked_emoji.questions import Asked

Weights = Mapping[tuple[str, str], float]  # of a form and an answer; what isn't there isn't asked

_RARE = 0.002  # of scenes, at least, can be asked a form with an answer: else it would be of always the same few emoji
_FEWEST_COLOURS = 3  # of a form that is asked for a colour: fewer would be guessed too well
_MOST = 0.9  # of the scenes that could be asked a kind are asked it; the rest leaves room to be even
_STEPS = 30
_HEAVIEST = 1_000.0  # as far as a weight grows where there are too few scenes for an answer


def answer_weights(askable: Sequence[Sequence[Asked]], taken: Callable[[int, str], float]) -> Weights:
    """Fits the weights to scenes.

    Of the questions of a kind that a scene can be asked, each is drawn with the probability w / (1 + the sum of their
    w), and else none. Each form then has each of its answers equally often in the long run, and forms of one kind share
    it in proportion to what their rarest answer allows. The fit is iterative and proportional (Deming and Stephan
    1940), a fixed number of steps.

    Args:
        askable: the questions that each scene can be asked.
        taken: the share of the drawn questions of a kind that a scene, by its place in `askable`, is asked at last.
    """
    cells: dict[tuple[str, str], int] = {}
    slots: dict[tuple[int, str], int] = {}
    entries = [
        (cells.setdefault((asked.form, asked.answer), len(cells)), slots.setdefault((i, asked.kind), len(slots)))
        for i, questions in enumerate(askable)
        for asked in questions
    ]
    kinds = {asked.form: asked.kind for questions in askable for asked in questions}
    cell, slot = np.array(entries).T
    share = np.array([taken(*each) for each in slots])
    once = np.unique(np.array(entries), axis=0)
    scenes = np.bincount(once[:, 0], minlength=len(cells))
    asked_of = _enough(cells, kinds, scenes >= _RARE * len(askable))
    supply = np.bincount(once[:, 0], share[once[:, 1]], minlength=len(cells))
    target = np.zeros(len(cells))
    whole, room = Counter[str](), Counter[str]()
    for form, places in asked_of.items():
        target[places] = supply[places].min()
        whole[kinds[form]] += target[places].sum()
    for (_, kind), each in zip(slots, share, strict=True):
        room[kind] += each
    for form, places in asked_of.items():
        target[places] *= _MOST * min(1.0, room[kinds[form]] / (whole[kinds[form]] or 1.0))
    weights = (target > 0).astype(float)
    for _ in range(_STEPS):
        given = weights[cell] * (share / (1 + np.bincount(slot, weights[cell], minlength=len(slots))))[slot]
        found = np.bincount(cell, given, minlength=len(cells))
        weights = np.minimum(weights * target / np.where(found > 0, found, 1), _HEAVIEST)
    # Rounded, so that machines that add in another order have the same.
    return {each: float(f"{weights[place]:.6g}") for each, place in cells.items() if weights[place] > 0}


def _enough(cells: Mapping[tuple[str, str], int], kinds: Mapping[str, str], often: np.ndarray) -> dict[str, list[int]]:
    """The answers, by place, of each form that has all that its kind's others have; of colours some are enough."""
    answers: dict[str, list[int]] = defaultdict(list)
    for (form, _), place in cells.items():
        if often[place]:
            answers[form].append(place)
    most = Counter[str]()
    for form, places in answers.items():
        most[kinds[form]] = max(most[kinds[form]], len(places))

    def least(kind: str) -> int:
        return min(most[kind], _FEWEST_COLOURS) if kind == "colour" else most[kind]

    return {form: places for form, places in answers.items() if len(places) >= least(kinds[form])}
