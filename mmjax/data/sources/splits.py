"""Assigns the rows of a table to splits: by a column, or by a hash that keeps rows with shared values together."""

import hashlib
import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

from mmjax.errors import UserError, nearest

WHOLE = "all"  # the name of a split that every table has: all of its rows

log = logging.getLogger(__name__)


class SplitNotFoundError(UserError):
    """A source has no such split."""


def by_column(table: str, column: Sequence[str | None], split: str, splits: Mapping[str, str]) -> list[int]:
    """The rows that a column puts into a split. Case and spaces at the ends make no difference.

    splits: the column's names for them. Raises UserError where the column lacks one of these, SplitNotFoundError where
    no row is in the split. Rows without a split are in none, with a warning.
    """
    known = [None if value is None else _plain(value) for value in column]
    there = dict.fromkeys(value for value in column if value is not None)
    names = ", ".join(sorted(there))
    for mine, theirs in splits.items():
        if _plain(theirs) not in known:
            raise UserError(
                f"{table}: splits={{{mine!r}: {theirs!r}}}, but its column of splits holds "
                f"{names or 'nothing'}{nearest(theirs, there)}"
            )
    name = splits.get(split, split)
    rows = [row for row, value in enumerate(known) if value == _plain(name)]
    if blank := known.count(None):
        log.warning("%s: %d of its %d rows name no split, and are in none", table, blank, len(known))
    if not rows:
        raise SplitNotFoundError(
            f"{table} has no row in the split {name!r}: its column of splits holds {names or 'nothing'} "
            f"(splits={{{split!r}: ...}} says which is to be taken)"
        )
    return rows


def by_hash(
    table: str,
    ids: Sequence[str],
    shared: Iterable[Iterable[Hashable]],
    split: str,
    splits: Mapping[str, str],
    shares: Mapping[str, float],
) -> list[int]:
    """The rows that a hash of their ids puts into a split, by `shares`.

    shared: for each row, values that other rows may have too. Rows connected by shared values, directly or through
    others, use one id, the first of theirs in the alphabet, and so have one split; a row that shares nothing uses its
    own.

    Raises UserError where the shares are invalid, or `splits` names none of them; SplitNotFoundError for an empty
    split.
    """
    if not shares or min(shares.values()) < 0 or not sum(shares.values()) > 0:
        raise UserError(f"{table}: shares={dict(shares)}: a share is at least 0, and one is more")
    for mine, theirs in splits.items():
        if theirs not in shares:
            raise UserError(
                f"{table}: splits={{{mine!r}: {theirs!r}}}, but there is no column of splits, and the shares are of "
                f"{', '.join(shares)}{nearest(theirs, shares)}"
            )
    name = splits.get(split, split)
    groups = connected(shared)
    first: dict[int, str] = {}
    for group, id in zip(groups, ids, strict=True):
        first[group] = min(first.get(group, id), id)
    split_of = {group: hashed_split(id, shares) for group, id in first.items()}
    rows = [row for row, group in enumerate(groups) if split_of[group] == name]
    if not rows:
        most = max(Counter(groups).values())
        raise SplitNotFoundError(
            f"{table} has no row in the split {name!r}: a hash of the id shares its {len(ids)} rows out as "
            f"{dict(shares)} (a column split is exact)"
            + (f"; of them {most} share pictures or sounds with one another, and a split" if most > 1 else "")
        )
    return rows


def connected(shared: Iterable[Iterable[Hashable]]) -> list[int]:
    """The first row, for each row, that it is connected with: by a value that both have, or through other rows."""
    parent: list[int] = []

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    seen: dict[Hashable, int] = {}
    for row, things in enumerate(shared):
        parent.append(row)
        for thing in things:
            other = root(seen.setdefault(thing, row))
            mine = root(row)
            parent[max(mine, other)] = min(mine, other)
    return [root(row) for row in range(len(parent))]


def hashed_split(id: str, shares: Mapping[str, float]) -> str:
    """The split of an id: the same on every machine, and whatever other rows there are."""
    place = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest()) / 2**64 * sum(shares.values())
    for split, share in shares.items():
        place -= share
        if place < 0:
            return split
    return next(reversed(list(shares)))  # reached by a rounding error at the end


def _plain(name: str) -> str:
    return str(name).strip().casefold()
