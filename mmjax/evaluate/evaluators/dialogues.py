"""Answers in conversations, turn by turn, written or ranked among candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.written.answer_match import answer_chances, answers_match
from mmjax.evaluate.metrics.written.option_chances import ndcg_chance, rank_chances
from mmjax.evaluate.metrics.written.ranked_options import mean_by_turn, option_ndcg, option_ranks, rank_scores
from mmjax.evaluate.samples import SampleLine, WrittenSample, spread
from mmjax.runtime.files import json_text


@dataclass(frozen=True)
class Dialogues(Evaluator):
    """Asks a `Caption` objective each question of a split's conversations, behind the true earlier turns, and measures
    the share of answers that are right: equal to the conversation's own, as `normal_answer` compares them.

    objective: its name in the experiment. messages: the column of conversations, as `ReadConversation` reads them.
    needs: a column that tells of each answer whether it needs an earlier turn; None: all but the first of a
    conversation do. most: the most words of an answer, in tokens. history: the number of earlier exchanges that are
    told; None: all.

    options: a column with candidates for answers, as VisDial has them (Das et al. 2017, arXiv:1611.08669): of each of a
    conversation's answers a list of texts, or None; the right one is the answer itself. relevance: a column with the
    relevance of each of these, for NDCG. Both may be JSON. They are ranked by their probability.

    Metrics: `<name>/<objective>/answer_accuracy`, `answer_accuracy/<turn>`, `later_accuracy` of answers that need an
    earlier turn, `spoken_accuracy` of questions that are sounds; beside them `chance_...` of answers drawn among the
    split's own, and `majority_...` of the most frequent one. Of options `R@1`, `R@5`, `R@10`, `mrr`, `mean_rank`,
    `ndcg` and their `chance_...` in a random order; `examples`, the number of answers.
    """

    objective: str
    messages: str = "messages"
    needs: str | None = None
    most: int = 16
    history: int | None = None
    options: str | None = None
    relevance: str | None = None
    split: str = "validation"
    when: When = "always"
    name: str = "dialogues"
    inputs: tuple[str, ...] = ()
    reads_embeddings = False

    @property
    def columns(self) -> tuple[str, ...]:
        more = (self.needs, self.options, self.relevance)
        return (self.messages, *(name for name in more if name is not None))

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        """Raises UserError where there is no model, objective or column, no conversation has an answer, or an answer
        isn't among its options."""
        model = embedded.model("Dialogues", "answer nothing")
        answered = self._answered(model)
        if not answered:
            raise UserError(
                f"Dialogues(messages={self.messages!r}): no conversation of the {embedded.split} split has an answer"
            )
        later = self._later(model, answered)
        right = np.array([answers_match(each.written, each.wanted) for each in answered], np.float64)
        wanted = [each.wanted for each in answered]
        numbers, found = [each.number for each in answered], {}
        found |= {f"answer_accuracy/{turn}": value for turn, value in mean_by_turn(right, numbers).items()}
        parts = {"answer_": np.ones(len(right), bool), "later_": later}
        for prefix, rows in parts.items():
            if rows.any():
                drawn, most = answer_chances([wanted[row] for row in np.flatnonzero(rows)])
                found[f"{prefix}accuracy"] = float(right[rows].mean())
                found |= {f"chance_{prefix}accuracy": drawn, f"majority_{prefix}accuracy": most}
        spoken = np.array([each.spoken for each in answered])
        if spoken.any():
            found["spoken_accuracy"] = float(right[spoken].mean())
        found |= {"examples": float(len(answered))}
        found |= {} if self.options is None else self._ranked(model)
        return {f"{self.name}/{self.objective}/{metric}": value for metric, value in found.items()}

    def samples(self, embedded: Embedded) -> list[WrittenSample]:
        """A few conversations, with what was written at each turn."""
        by_row: dict[int, list[SampleLine]] = {}
        for each in self._answered(embedded.model("Dialogues", "answer nothing")):
            right = answers_match(each.written, each.wanted)
            lines = by_row.setdefault(each.row, [])
            lines.append(SampleLine("asked", each.asked or "(a sound)"))
            lines.append(SampleLine("wrote", each.written, right))
            lines += [] if right else [SampleLine("right is", each.wanted)]
        name = f"{self.name}/{self.objective}"
        return [WrittenSample(name, row, tuple(lines)) for row, lines in spread(list(by_row.items()))]

    def _answered(self, model: Any) -> Sequence[Any]:
        return model.answered(self.objective, self.messages, self.most, self.history)

    def _later(self, model: Any, answered: Sequence[Any]) -> Bool[np.ndarray, " n"]:
        if self.needs is None:
            return np.array([each.number > 1 for each in answered])
        told = model.column(self.needs)
        for each in answered:
            if told[each.row] is None or len(told[each.row]) < each.number:
                raise UserError(
                    f"Dialogues(needs={self.needs!r}): the column tells nothing of answer {each.number} of row "
                    f"{each.row}: it is a list of as many values as the conversation has answers"
                )
        return np.array([bool(told[each.row][each.number - 1]) for each in answered])

    def _ranked(self, model: Any) -> dict[str, float]:
        """The scores of candidates in the order of their probability."""
        told = [_listed(cell, "options") for cell in model.column(self.options)]
        options = {(row, turn): each for row, some in enumerate(told) for turn, each in enumerate(some, 1) if each}
        asked, wanted = model.ranked_answers(self.objective, self.messages, options, self.history)
        if not asked:
            raise UserError(f"Dialogues(options={self.options!r}): no answer has options")
        table, there = _table([asked[key] for key in asked])
        places = np.array([_place(wanted[key], options[key]) for key in asked])
        found = rank_scores(option_ranks(table, places, there))
        found |= {f"chance_{name}": value for name, value in rank_chances(there.sum(axis=1)).items()}
        judged = [] if self.relevance is None else [_listed(cell, "relevance") for cell in model.column(self.relevance)]
        known = {(row, turn): each for row, some in enumerate(judged) for turn, each in enumerate(some, 1)}
        rows = [place for place, key in enumerate(asked) if known.get(key) is not None and np.any(known[key])]
        if rows:
            keys = list(asked)
            for key in (keys[row] for row in rows):
                if len(known[key]) != len(options[key]):
                    raise UserError(
                        f"Dialogues(relevance={self.relevance!r}): answer {key[1]} of row {key[0]} has "
                        f"{len(known[key])} values and {len(options[key])} options"
                    )
            wide, _ = _table([known[keys[row]] for row in rows], 0.0, table.shape[1])
            found["ndcg"] = float(option_ndcg(table[rows], wide).mean())
            found["chance_ndcg"] = ndcg_chance(wide, there[rows].sum(axis=1))
        return found


def _listed(cell: Any, field: str) -> list[Any]:
    """The lists of a cell, by answer; none where it is empty. Raises UserError where there are no lists in it."""
    try:
        given: Any = json_text.parse(cell) if isinstance(cell, str | bytes) and cell else cell
        return [None if each is None else list(each) for each in ([] if given is None else given)]
    except (TypeError, ValueError) as error:
        raise UserError(f"Dialogues({field}=...): {cell!r:.60} is no list of lists, one for each answer") from error


def _table(
    rows: Sequence[Sequence[float]], rest: float = -np.inf, wide: int = 0
) -> tuple[Float[np.ndarray, "n o"], Bool[np.ndarray, "n o"]]:
    """Rows of different lengths as an array, and where each has values."""
    lengths = np.array([len(row) for row in rows])
    there = np.arange(max(wide, lengths.max())) < lengths[:, None]
    table = np.full(there.shape, rest)
    table[there] = np.concatenate([np.asarray(row, np.float64) for row in rows])
    return table, there


def _place(wanted: str, options: Sequence[str]) -> int | Int[np.ndarray, ""]:
    """The place of an answer among its options, as it stands or else normalised; -1 where it isn't there."""
    if wanted in options:
        return options.index(wanted)
    return next((place for place, option in enumerate(options) if answers_match(option, wanted)), -1)
