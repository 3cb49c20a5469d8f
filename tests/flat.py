"""Fields of towers, and of decoders, beside those of their blocks: for tests that vary either."""

import dataclasses
from typing import Any

from mmjax.models import Blocks

NAMES = {field.name for field in dataclasses.fields(Blocks)}


def flat(part: Any, **given: Any) -> Any:
    """`part(blocks=Blocks(...), ...)`: `flat(ViT, patch=4, size=8, width=8, depth=1, heads=2, pooling="mean")`."""
    inner = {name: value for name, value in given.items() if name in NAMES}
    return part(blocks=Blocks(**inner), **{name: value for name, value in given.items() if name not in NAMES})


def put(tower: Any, **changes: Any) -> None:
    """Sets fields of a tower's config, or of its blocks'."""
    for name, value in changes.items():
        setattr(tower.blocks if name in NAMES else tower, name, value)
