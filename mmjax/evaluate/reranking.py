"""Adds re-ranking by a model's own matching objectives to a run's evaluators, as `mmjax evaluate --rerank` asks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmjax.errors import UserError
from mmjax.evaluate.contract import Evaluator
from mmjax.evaluate.evaluators.reranked import Reranked
from mmjax.objectives.matching import Matching


def with_reranked(evaluators: Sequence[Evaluator], objectives: Mapping[str, Any], top: int) -> list[Evaluator]:
    """These evaluators, and on each of their splits a `Reranked` of the `top` candidates by every `Matching` objective.

    One that is there already stays as it is but for `top`; another one takes the `same` and the `at` of the split's
    retrieval. Of several objectives each has a name of its own, `reranked_<objective>`.

    Raises:
        UserError: there is no `Matching` objective, or `top` is below 1.
    """
    able = [name for name, one in objectives.items() if isinstance(one, Matching)]
    if not able:
        have = ", ".join(f"{name} ({type(one).__name__})" for name, one in objectives.items()) or "none"
        raise UserError(
            f"rerank={top} puts candidates in order by a Matching objective, and the model was trained without one; "
            f"its objectives are {have}"
        )
    if top < 1:
        raise UserError(f"rerank={top} must be at least 1: so many of the towers' candidates are put in order")
    found = [replace(each, top=top) if isinstance(each, Reranked) else each for each in evaluators]
    for split in dict.fromkeys(each.split for each in evaluators):
        mine = [each for each in found if each.split == split]
        known = {each.objective for each in mine if isinstance(each, Reranked)}
        like = next((each for each in mine if each.between_modalities), None)
        for name in able:
            if name not in known:
                own = {} if like is None else {"same": like.same, "at": getattr(like, "at", Reranked.at)}
                called = Reranked.name if len(able) == 1 else f"{Reranked.name}_{name}"
                found.append(Reranked(name, top, split, **own, name=called))
    return found
