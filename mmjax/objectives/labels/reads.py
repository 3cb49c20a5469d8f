"""The inputs that an objective of labels reads: one by its tower, or several by a fusion."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import AnyView, Fused, View, valid


def views_of(inputs: tuple[str, ...], fusion: str | None) -> tuple[AnyView, ...]:
    """The one view: of the input, or of all by the fusion."""
    singles = tuple(View(name) for name in inputs)
    return singles if fusion is None else (Fused(fusion, singles),)


def check_reads(
    path: str, inputs: tuple[str, ...], fusion: str | None, label: str, incoming: Mapping[str, Incoming], ends: str
) -> None:
    """Raises UserError where several inputs have no fusion, or the data has no such label. ends: the transform that
    would make it."""
    if fusion is None and len(inputs) != 1:
        raise UserError(
            f"{path}.inputs={inputs} are {len(inputs)} inputs and fusion=None: name the fusion that reads them, or one "
            "input"
        )
    if label not in incoming:
        raise UserError(
            f"{path} learns the label {label!r}, which data.transforms lacks; it has chains for "
            f"{', '.join(incoming)}: add one that ends in {ends}(...)"
        )


def has_label(batch: Mapping[str, Array], label: str, inputs: tuple[str, ...]) -> Bool[Array, " b"]:
    """A mask of the examples that have the label and at least one of the inputs."""
    return valid(batch, label) & jnp.any(jnp.stack([valid(batch, name) for name in inputs]), axis=0)
