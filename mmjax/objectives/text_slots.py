"""Checks that the places which a text has for the tokens of pictures are those that its decoder fills."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.models.towers.bare import BareTower, Incoming


def check_slots(path: str, decoder: Any, text: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
    """Raises UserError where a text has places and the decoder puts nothing there, or the reverse; or where names,
    their order or the numbers of tokens differ, as far as those are known.

    path: of the objective. towers, inputs: by name.
    """
    given = inputs[text]
    if ("slots" in given.labels) != bool(decoder.inserted):
        raise UserError(
            f"the texts of {text!r} have places for a picture's tokens (slots), and {path}.decoder puts none there: "
            "name the pictures in its inserted, or leave out slots, and let it read them as a prefix or a context"
            if "slots" in given.labels
            else f"{path}.decoder.inserted={sorted(decoder.inserted)}, and the texts of {text!r} have no places for "
            "their tokens: end the chain in TokenizeConversation(slots={...})"
        )
    slots = dict(given.slots)
    if slots and [*slots] != [*decoder.inserted]:
        raise UserError(
            f"the texts of {text!r} have places for the tokens of {', '.join(slots)}, in this order (slots), and "
            f"{path}.decoder.inserted is {', '.join(decoder.inserted)}: name the same in both, in the same order"
        )
    for name, count in slots.items():
        found = _number(decoder.inserted[name], decoder.blocks.width, towers.get(name), inputs[name])
        if found is not None and found != count:
            raise UserError(
                f"the texts of {text!r} have {count} places for {name!r} (slots), and its tower and "
                f"{path}.decoder.inserted[{name!r}] make {found} tokens of it: set slots={{{name!r}: {found}}}"
            )


def _number(projector: Any, width: int, tower: Any, given: Incoming) -> int | None:
    """The number of tokens that a tower and a projector make of an input; None: it can't be told."""
    if not isinstance(tower, BareTower):
        return None

    def made() -> tuple[Any, Any]:
        x, key = jnp.zeros((1, *given.shape), given.dtype), jax.random.key(0)
        found: Any = tower.init_with_output(key, x, method="tokens")[0]
        return found if projector is None else projector.init_with_output(key, *found, width)[0]

    return jax.eval_shape(made)[0].shape[1]
