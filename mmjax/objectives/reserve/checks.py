"""Checks that MERLOT Reserve's objective fits its towers and its data."""

from collections.abc import Mapping
from typing import Any

from mmjax.errors import UserError, unknown
from mmjax.models.towers.bare import Incoming


def check_chosen(field: str, names: tuple[str, ...], known: tuple[str, ...], kind: str) -> None:
    """Raises UserError for a name that isn't known, or none at all."""
    for name in names:
        if name not in known:
            raise UserError(unknown(f"Reserve.{field} has", name, known, kind))
    if not names:
        raise UserError(f"Reserve({field}=()): name one at least, of {', '.join(known)}")


def check_numbers(chosen: int, favour: float, scale_init: float, scale_max: float) -> None:
    """Raises UserError for numbers that can't be."""
    if chosen < 1 or min(favour, scale_init, scale_max) <= 0:
        raise UserError(
            f"Reserve(chosen={chosen}, favour={favour}, scale_init={scale_init:g}, scale_max={scale_max}): chosen is a "
            "whole number from 1 on, and the others are above 0"
        )


def check_frames(path: str, grid: tuple[int, int], tower: str, towers: Mapping[str, Any]) -> None:
    """Raises UserError where a frame of the tower has another grid of tokens."""
    cells = getattr(towers[tower], "rows_columns", None)
    if cells is not None and tuple(cells) != tuple(grid):
        raise UserError(f"{path}.grid={grid}, and a frame of towers.{tower} has {cells} tokens: set it to that")


def check_width(path: str, width: int, tower: str, towers: Mapping[str, Any]) -> None:
    """Raises UserError where the tower's vectors have another size than the states."""
    size = getattr(towers[tower], "embedding_size", None)
    if size not in (None, width):
        raise UserError(f"{path}.blocks.width={width}, and towers.{tower} is {size} wide: set them alike")


def check_streams(
    path: str, name: str, ends: str, labels: tuple[str, ...], inputs: Mapping[str, Incoming], vocab: int, special: int
) -> None:
    """Raises UserError where the data's entry hasn't these labels, or an id has no row in the table.

    ends: the transform in which its chain ends.
    """
    if name not in inputs or not {*labels, "lengths"} <= set(inputs[name].labels):
        raise UserError(
            f"{path} reads the streams of {name!r}, and data.transforms has no chain of such: end it in {ends}(...)"
        )
    if (needed := inputs[name].pieces + special) > vocab:
        raise UserError(
            f"the tokenizer of {name!r} has up to {inputs[name].pieces} pieces, and with {special} special ids "
            f"{path}.vocab={vocab} has no room for them: set it to {needed}"
        )
