"""The optional check of an objective against the towers and the data, before anything is compiled."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mmjax.models.towers.bare import Incoming


@runtime_checkable
class Demanding(Protocol):
    """An objective that needs more than its views. One that doesn't leaves the method out."""

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """path: of the objective in the experiment, `objectives.seen`. towers, inputs: by name; what its views read is
        among them.

        Raises:
            UserError: it can't learn from these; names the path, with the value of what doesn't fit, and what to do.
        """
        ...
