"""Reads fields of earlier versions' records: those that are gone, that mean something else where a record leaves them
out, and that stand in another part now.

Read, never written. A field that moves into a part of its own gets a rule here.
"""

from collections.abc import Mapping
from typing import Any

import fiddle as fdl

from mmjax.experiment.graph import complete, fields
from mmjax.models import Blocks
from mmjax.models.layers.blocks import FORMER

# What a field means in records that were written before it was there, where that isn't its default.
BEFORE: dict[str, dict[str, Any]] = {"data:Decode": {"upright": False}, "models:Blocks": {"remat": None}}
# What files of older versions say of a callable that has no such field any more: read over. A batch's `text_types` say
# what a text tower's separators were counted for.
GONE = {"models:TextTransformer": ("separator",)}

BLOCKS = "blocks"
CALL = "@call"
# What a tower with a trunk takes of the trunk's blocks where it has none of its own; the rest is the trunk's alone.
SHARED = ("width", "depth", "heads", "mlp_dim", "activation", "norm_eps", "inits", "dtype")


def in_blocks(called: str, function: Any, value: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A part of a record, as JSON has it, by the fields of now, and whether its own have become its `blocks`: those of
    a transformer stood in each part that has one. Without fields that are gone.

    called, function: the part's name and its class of now.
    """
    held = {name: item for name, item in value.items() if name not in GONE.get(called, ())}
    known = fields(function)
    moved = [name for name in fields(Blocks) if name in held and name not in known]
    if BLOCKS not in known or BLOCKS in held or not moved:
        return held, False
    blocks = {CALL: "models:Blocks", **{name: held[name] for name in moved}}
    return {**{name: item for name, item in held.items() if name not in moved}, BLOCKS: blocks}, True


def settle(config: fdl.Config) -> None:
    """Leaves a tower's blocks out, which were made of its own fields, where they say no more than its trunk's."""
    trunk = config.__arguments__.get("trunk")
    its = trunk.__arguments__.get(BLOCKS) if isinstance(trunk, fdl.Config) else None
    if not isinstance(its, fdl.Config):
        return
    usual, mine, its = (complete(part).__arguments__ for part in (fdl.Config(Blocks), config.blocks, its))
    for name in fields(Blocks):
        same = (its.get(name),) if name in SHARED else (usual.get(name), *FORMER.get(name, ()))
        if mine.get(name) not in same:
            return
    config.blocks = None
