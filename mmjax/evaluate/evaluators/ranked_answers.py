"""Answers that a model ranks among the options of a question, as visual dialogue is judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.written.ranked_options import mean_by_turn, option_ndcg, option_ranks, rank_scores


@dataclass(frozen=True)
class RankedAnswers(Evaluator):
    """Ranks each example's options by the probability that a `Caption` objective would have written them, as VisDial's
    generative models do (Das et al. 2017, arXiv:1611.08669).

    objective: its name in the experiment. options: the column with the list of an example's options. right: the column
    with the right one, its text or its place from 0. prompt: the column with what stands before the answer; None: the
    begin of a text. relevance: a column with the relevance of each option, for NDCG, of the examples that have one.
    turn: a column with a question's number in its dialogue, by which R@1 is told too.

    Metrics: `<name>/<objective>/R@1`, `R@5`, `R@10`, `mrr`, `mean_rank`, `ndcg`, `R@1/<turn>` and `examples`. An option
    that is as likely as the right one ranks before it.
    """

    objective: str
    options: str = "options"
    right: str = "right"
    prompt: str | None = None
    relevance: str | None = None
    turn: str | None = None
    split: str = "validation"
    when: When = "always"
    name: str = "ranked"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    @property
    def columns(self) -> tuple[str, ...]:
        more = (self.prompt, self.relevance, self.turn)
        return (self.options, self.right, *(name for name in more if name is not None))

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective or column, no example has options, or the right one isn't
        among them."""
        model = embedded.model("RankedAnswers", "rank nothing")
        options = [list(some) if some is not None else [] for some in model.column(self.options)]
        right = model.column(self.right)
        prompts = ["" if text is None else text for text in column_or_none(model, self.prompt, len(options))]
        scores: dict[int, Any] = model.option_scores(self.objective, prompts, options)
        rows = [row for row in sorted(scores) if right[row] is not None]
        if not rows:
            raise UserError(
                f"RankedAnswers(options={self.options!r}): no example of the {embedded.split} split has options, and "
                f"{self.right!r}"
            )
        most = max(len(options[row]) for row in rows)
        there = np.array([np.arange(most) < len(options[row]) for row in rows])
        table = np.full((len(rows), most), -np.inf)
        for place, row in enumerate(rows):
            table[place, : len(options[row])] = scores[row]
        ranks = option_ranks(table, np.array([place_of(right[row], options[row]) for row in rows]), there)
        found = rank_scores(ranks) | {"examples": float(len(rows))}
        turns = column_or_none(model, self.turn, len(options))
        if self.turn is not None:
            told = mean_by_turn(ranks == 1, [turns[row] for row in rows])
            found |= {f"R@1/{turn}": value for turn, value in told.items()}
        relevance = column_or_none(model, self.relevance, len(options))
        judged = [place for place, row in enumerate(rows) if relevance[row] is not None and np.any(relevance[row])]
        if judged:
            wanted = np.zeros((len(judged), most))
            for line, place in enumerate(judged):
                wanted[line, : len(options[rows[place]])] = relevance[rows[place]]
            found["ndcg"] = float(option_ndcg(table[judged], wanted).mean())
        return {f"{self.name}/{self.objective}/{metric}": value for metric, value in found.items()}


def column_or_none(model: Any, name: str | None, count: int) -> list[Any]:
    """A column of the split; None in each row where there is no name."""
    return [None] * count if name is None else model.column(name)


def place_of(right: Any, options: list[str]) -> int:
    """The place of the right option, which is told by its text or its place; -1 where it isn't there."""
    if isinstance(right, str):
        return options.index(right) if right in options else -1
    return int(right)
