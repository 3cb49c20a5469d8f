"""Asks questions of `asked_emoji` without end: each is drawn by its number alone."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from mmjax.data.datasets.asked_emoji.answer_weights import Weights, answer_weights
from mmjax.data.datasets.asked_emoji.balance import SHARES
from mmjax.data.datasets.asked_emoji.questions import Asked, asked_alone, asked_of_places
from mmjax.data.datasets.asked_emoji.scenes import Pool, Scene, drawn_scene
from mmjax.data.datasets.spoken_emoji.catalogue import hashed
from mmjax.errors import UserError

OF_A_PICTURE = 4  # questions, whose answers differ: the picture alone tells a quarter of them
_SCENES = 5_000  # that weights are fitted to: 5 to 10 % of error for an answer that one scene in fifty has
_ATTEMPTS = 100  # at a scene that can be asked enough
# Kinds whose answers may be the same: a picture is asked one of them.
_ALIKE = {"beside": "side", "neighbour": "group"}


class Asker:
    """Asks about pictures of a split's emoji, so that neither a question nor a picture alone tells an answer.

    The answers of a form are as frequent as each other in the long run, those of a picture differ, and kinds have about
    the shares of `SHARES`. It can be sent to another process, where it asks the same.
    """

    def __init__(self, pool: Pool) -> None:
        """Measures how often emoji of `pool` allow each answer (two seconds)."""
        self._pool = pool
        fitted = [drawn_scene(pool, f"fitted-{number}", number) for number in range(_SCENES)]
        askable = [_askable(scene) for scene in fitted]
        self._weights: Weights = answer_weights(askable, lambda scene, kind: 1.0)
        # A scene of few emoji can be asked less, and so is asked what it can be more often: weigh that as well.
        drawn, taken = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
        for scene, questions in zip(fitted, askable, strict=True):
            offered = _offered(scene, questions, self._weights)
            drawn.update((asked.kind, len(scene.placed)) for asked in offered)
            taken.update((asked.kind, len(scene.placed)) for asked in _differing(offered))

        def share(scene: int, kind: str) -> float:
            key = kind, len(fitted[scene].placed)
            return taken[key] / max(1, drawn[key])

        self._weights = answer_weights(askable, share)

    def asked(self, number: int) -> tuple[Scene, Asked]:
        """Question `number`, from 0 on, with the scene that it is asked of: `OF_A_PICTURE` in a row share one."""
        picture, which = divmod(number, OF_A_PICTURE)
        scene, questions = self.asked_of_picture(picture)
        return scene, questions[which]

    def asked_of_picture(self, picture: int) -> tuple[Scene, list[Asked]]:
        """The scene of a picture, by its number from 0 on, and its `OF_A_PICTURE` questions.

        Raises:
            UserError: no scene of such emoji can be asked enough.
        """
        for attempt in range(_ATTEMPTS):
            scene = drawn_scene(self._pool, f"scene-{picture:07d}.{attempt}", picture)
            if found := _differing(_offered(scene, _askable(scene), self._weights)):
                return scene, found
        raise UserError(
            f"asked_emoji: of {len(self._pool.emoji)} emoji no scene in {_ATTEMPTS} can be asked {OF_A_PICTURE} "
            "questions of different answers: raise limit"
        )

    def described(self) -> str:
        """All that questions depend on, in words: the emoji and the weights."""
        return f"{self._pool.emoji} {sorted(self._weights.items())}"


def _askable(scene: Scene) -> list[Asked]:
    return [*asked_alone(scene), *asked_of_places(scene)]


def _offered(scene: Scene, askable: Iterable[Asked], weights: Weights) -> list[Asked]:
    """A question of each kind, or none, drawn by the weights, and those in an order drawn by the kinds' shares."""
    kinds: dict[str, list[tuple[float, Asked]]] = defaultdict(list)
    for asked in askable:
        if (weight := weights.get((asked.form, asked.answer))) is not None:
            kinds[asked.kind].append((weight, asked))
    offered = []
    for kind, weighted in kinds.items():
        left = _uniform(f"{scene.id}/{kind}/which") * (1 + sum(weight for weight, _ in weighted))
        for weight, asked in weighted:
            left -= weight
            if left < 0:
                # The first of exponential times with these rates is of a kind by its share, and so are the next.
                offered.append((-math.log(_uniform(f"{scene.id}/{kind}/when")) / SHARES[kind], asked))
                break
    return [asked for _, asked in sorted(offered, key=lambda each: each[0])]


def _differing(offered: Iterable[Asked]) -> list[Asked]:
    """The first `OF_A_PICTURE` of the questions whose answers can't be the same; none where there are fewer."""
    found: dict[str, Asked] = {}
    for asked in offered:
        found.setdefault(_ALIKE.get(asked.kind, asked.kind), asked)
    return list(found.values())[:OF_A_PICTURE] if len(found) >= OF_A_PICTURE else []


def _uniform(key: str) -> float:
    """Drawn between 0 and 1, neither of them."""
    return (hashed(f"asked/{key}") // 2**12 + 0.5) / 2**52
