"""The optional check of an objective against the towers and the data, before anything is compiled."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mmjax.models.towers.bare import Incoming


@runtime_checkable
class Demanding(Protocol):
    """An objective that requires more than its views. Others leave the method out."""

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Checks the parts that the objective needs.

        path: of the objective in the experiment, `objectives.seen`. towers, inputs: by name; those of its views are
        among them.

        Raises:
            UserError: it can't learn from these; the message has the path, the wrong value, and what to do.
        """
        ...
