"""The second round: objectives choose pairs of rows from the whole batch, and look at their tokens pair by pair."""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from mmjax.errors import UserError
from mmjax.models.fusion.contract import reads_front
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import HIDDEN, constrain
from mmjax.objectives.contract import RowPairs, TwoRounds, View, fusions, named_key, valid
from mmjax.objectives.microbatches import each_part

Batch = Mapping[str, Array]
Kept = tuple[TokensAndMask, ...]  # in the order of `kept_views`


def two_rounds(objectives: Mapping[str, Any]) -> dict[str, TwoRounds]:
    """Those of the objectives that have a second round."""
    return {name: objective for name, objective in objectives.items() if isinstance(objective, TwoRounds)}


def kept_views(objectives: Mapping[str, Any], fusers: Mapping[str, Any]) -> tuple[tuple[View, bool], ...]:
    """The views whose tokens are kept after the first round, each once, and whether it is what goes into their trunk
    that is kept (`by_front`).
    """
    two = two_rounds(objectives).values()
    return tuple(dict.fromkeys((view, by_front(one, view, fusers)) for one in two for view in one.kept()))


def by_front(objective: Any, view: View, fusers: Mapping[str, Any]) -> bool:
    """True if the fusions of an objective read, of a view that it keeps, what goes into its tower's trunk.

    Raises UserError where only some of them do.
    """
    read = {reads_front(fusers[name], view.input) for name in fusions(objective) if name in fusers}
    if len(read) > 1:
        raise UserError(
            f"a {type(objective).__name__} reads the fusions {', '.join(fusions(objective))}, of which only some go "
            "through the towers' trunk: give those an objective of their own"
        )
    return read == {True}


def second_round(
    module: Any,
    outputs: Mapping[str, Any],
    kept: Kept,
    batch: Batch,
    key: PRNGKeyArray | None,
    training: frozenset[str],
    step: Int[Array, ""],
) -> dict[str, Any]:
    """The outputs of `per_pair` for all pairs, by objective; {} where no objective has a second round.

    Args:
        module: the pretrainer.
        outputs: of `per_example`, by objective, of the global batch.
        kept: the tokens of each of `kept_views`, of the global batch.
        key: the step's; each objective's `pairs` gets one of its own.
        training: the parts that train, by their parameters' names.
        step: the number of steps before this one.

    Raises:
        UserError: `pairs` gives no rows of its kept views; there is no key.
    """
    chosen: dict[str, Int[Array, "p v"]] = {}
    for name, objective in two_rounds(module.objectives).items():
        if key is None:
            raise UserError(
                f"objective {name!r} chooses its pairs at random and was given no key: pass rngs={{'mask': key}} (with "
                "train=False too)"
            )
        still = jax.lax.stop_gradient(outputs[name])
        rows = objective.pairs(still, batch, named_key(key, f"pairs {name}"))
        chosen[name] = _checked(name, objective, jax.lax.stop_gradient(rows))
    if not chosen:
        return {}
    views = kept_views(module.objectives, module.fusions)

    def meet(
        module: Any,
        rows: Mapping[str, Int[Array, "p v"]],
        kept: Kept,
        batch: Batch,
        key: PRNGKeyArray | None,
        step: Int[Array, ""],
    ) -> dict[str, Any]:
        found = {}
        for name, own in rows.items():
            objective = module.objectives[name]
            pairs = RowPairs(own, _valid(objective.kept(), own, batch))
            places = [views.index((view, by_front(objective, view, module.fusions))) for view in objective.kept()]
            tokens = {view: _rows_of(kept[at], own[:, i])
                      for i, (view, at) in enumerate(zip(objective.kept(), places, strict=True))}  # fmt: skip
            told = module.context(name, "per_pair", key, jnp.take(batch["index"], own, mode="clip"), training, step)
            found[name] = objective.per_pair(tokens, pairs, told)
        return found

    filled = {name: _filled(rows, module.microbatches) for name, rows in chosen.items()}
    read = {name: batch[name] for name in ["index", *(f"{view.input}_valid" for view, _ in views)]}
    found = each_part(module, meet, module.microbatches, filled, kept, read, key, step)
    return {name: jax.tree.map(itemgetter(slice(len(rows))), found[name]) for name, rows in chosen.items()}


def _checked(name: str, objective: TwoRounds, rows: Array) -> Int[Array, "p v"]:
    views = len(objective.kept())
    if rows.ndim != 2 or rows.shape[1] != views or not jnp.issubdtype(rows.dtype, jnp.integer):
        raise UserError(
            f"objectives.{name}.pairs gives {rows.dtype}{list(rows.shape)}; it gives row numbers [pairs, {views}], one "
            f"for each of its {views} kept views"
        )
    return rows


def _filled(rows: Int[Array, "p v"], parts: int) -> Int[Array, "q v"]:
    """The pairs, padded with invalid ones so that the parts divide them."""
    return jnp.pad(rows, ((0, -len(rows) % parts), (0, 0)), constant_values=-1)


def _valid(views: tuple[View, ...], rows: Int[Array, "p v"], batch: Batch) -> Array:
    """A mask of the pairs in which every row exists and has its view's input."""
    count = len(batch["index"])
    there = [jnp.take(valid(batch, view.input), rows[:, place], mode="clip") for place, view in enumerate(views)]
    return jnp.stack([*there, *((rows >= 0) & (rows < count)).T]).all(axis=0)


def _rows_of(tokens: TokensAndMask, rows: Int[Array, " p"]) -> TokensAndMask:
    """The tokens of those rows, cut over the devices as a batch is, wherever the rows are."""
    found, mask = (jnp.take(x, rows, axis=0, mode="clip") for x in tokens)
    return constrain(found, *HIDDEN), mask
