"""Decides which checkpoints are kept: the latest few, the best few by a metric, and every k-th for ever."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmjax.errors import UserError


@dataclass(frozen=True)
class Best:
    """The best checkpoints by an evaluation's metric: `Best("validation", "retrieval/image->text/R@1", 2)`.

    split, metric: as the metrics name them. count: how many are kept. lowest: whether less is better (a rank, a loss).

    Raises UserError where count is less than 1.
    """

    split: str
    metric: str
    count: int = 1
    lowest: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"Best(count={self.count}): the number of checkpoints that stay is at least 1")

    def of(self, scores: Mapping[int, float]) -> set[int]:
        """The steps of the best scores; of equal ones the later is better."""
        sign = 1 if self.lowest else -1
        return set(sorted(scores, key=lambda step: (sign * scores[step], -step))[: self.count])


@dataclass(frozen=True)
class Keeping:
    """An Orbax preservation policy: keeps a checkpoint for any of three reasons.

    latest: how many of the newest. every: those of steps that it divides, for ever; 0: none. best: see `Best`.
    evaluations: gives the evaluations of a step that are known so far, by split. One that is not evaluated yet isn't
    among the best; the latest ones are still there when it is. held: steps that stay while their score is unknown.
    """

    latest: int
    every: int = 0
    best: Best | None = None
    evaluations: Callable[[int], Mapping[str, Mapping[str, float | None]]] = lambda step: {}
    held: frozenset[int] = frozenset()

    def holding(self, steps: Iterable[int]) -> "Keeping":
        """The same policy, which also holds those of a run's checkpoints that only a score, now lost, can have kept."""
        if self.best is None:
            return self
        older = sorted(steps)[: -self.latest]
        scores = self._scores(self.best, older)
        return replace(self, held=frozenset(s for s in older if s not in scores and not self._for_ever(s)))

    def _for_ever(self, step: int) -> bool:
        return bool(self.every) and step % self.every == 0

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any = None) -> Sequence[bool]:
        """True for each checkpoint (it has a `step`) that is kept."""
        del context
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        scores = {} if self.best is None else self._scores(self.best, steps)
        stay = {*steps[-self.latest :], *(self.held - scores.keys()), *filter(self._for_ever, steps)}
        if self.best is not None:
            stay |= self.best.of(scores)
        return [checkpoint.step in stay for checkpoint in checkpoints]

    def _scores(self, best: Best, steps: Sequence[int]) -> dict[int, float]:
        found = {step: self.evaluations(step).get(best.split, {}).get(best.metric) for step in steps}
        return {step: score for step, score in found.items() if score is not None}
