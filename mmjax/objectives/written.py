"""The decoder by which an objective writes, and its parameters out of those of the whole model."""

from collections.abc import Mapping
from typing import Any

from mmjax.models.decoders.upper import goes_on
from mmjax.objectives.contract import Writing


def params_to_write(objective: Writing, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of all parameters that writing needs: the objective's, and its text's tower's where the decoder goes on
    from that.

    name: of the objective.
    """
    parts = [f"objectives_{name}", *([f"towers_{objective.text}"] if goes_on(objective.decoder) else [])]
    return {part: params[part] for part in parts}


def decoder_to_write(
    objective: Writing, name: str, towers: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """The decoder that reads ids, and its own parameters.

    name: of the objective. params: all, or those of `params_to_write`.
    """
    decoder, own = objective.decoder, params[f"objectives_{name}"]["decoder"]
    if not goes_on(decoder):
        return decoder, own
    return decoder.whole(towers[objective.text]), decoder.whole_params(params[f"towers_{objective.text}"], own)
