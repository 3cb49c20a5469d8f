"""Splits of sources that name their files by patterns: `train`, others by patterns of their own, or by shares."""

from collections.abc import Mapping

from mmjax.data.shard_names import ShardNames
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError
from mmjax.errors import UserError


def check_pattern_splits(kind: str, splits: Mapping[str, str], shares: Mapping[str, float], index: str) -> None:
    """Raises UserError where a source's fields don't go together. kind: its class's name."""
    if index not in ("cache", "beside"):
        raise UserError(f"{kind}(index={index!r}): an index is kept in the 'cache', or 'beside' its file")
    if splits and shares:
        raise UserError(f"{kind}(splits=..., shares=...): other splits have files of their own, or a share: give one")
    if shares and not (min(shares.values()) > 0 and sum(shares.values()) < 1):
        raise UserError(f"{kind}(shares={shares}): shares are above 0, and below 1 together; the rest is train")


def pattern_folders(field: str, pattern: str, splits: Mapping[str, str]) -> dict[str, str]:
    """The folder of each pattern, by the field that holds it. field: that of `pattern`, the split `train`."""
    patterns = {field: pattern} | {f"splits.{split}": other for split, other in splits.items()}
    return {name: ShardNames(each).folder or "." for name, each in patterns.items()}


def files_of_split(
    where: str, split: str, pattern: str, splits: Mapping[str, str], shares: Mapping[str, float]
) -> list[str]:
    """The files that hold a split; those of `train` hold its shares too. where: the source, for messages.

    Raises `SplitNotFoundError` where there is none.
    """
    patterns = {"train": pattern} | dict(splits)
    if split == WHOLE and split not in patterns:
        found = [name for each in patterns.values() for name in ShardNames(each)]
    else:
        held = "train" if split in shares else split
        found = list(ShardNames(patterns[held])) if held in patterns else []
    if not found:
        told = ", ".join(f"{name} ({each})" for name, each in patterns.items())
        raise SplitNotFoundError(
            f"{where} has no file in the split {split!r}; it has {told}"
            + (f" and shares of {', '.join(shares)}" if shares else "")
        )
    return found
