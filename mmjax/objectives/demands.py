"""The optional check of an objective against the towers and the data, before anything is compiled."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import View


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


@runtime_checkable
class Counting(Protocol):
    """An objective with variables that are counted in the training split once, before a run's first step; from then on
    they are a part of the run's state. The others leave the methods out."""

    text: str
    """The entry that is counted."""

    def counted_variables(self, rows: Iterable[Mapping[str, np.ndarray]], path: str) -> dict[str, dict[str, Any]]:
        """The objective's variables, by collection, in the shapes that it starts with.

        rows: of each example of the training split that has the entry, that and its labels. path: of the objective in
        the experiment.

        Raises:
            UserError: they can't be counted.
        """
        ...


def check_embedding_sizes(path: str, views: Iterable[View], towers: Mapping[str, Any]) -> None:
    """Raises UserError where the towers of views that are compared embed into two sizes."""
    sizes = {view.by: getattr(towers[view.by], "embedding_size", None) for view in views}
    if len(set(sizes.values())) > 1 and None not in sizes.values():
        each = " and ".join(f"towers.{tower} into {size}" for tower, size in sizes.items())
        raise UserError(f"{path} compares embeddings of one size, but {each}: set the same embed_dim")
