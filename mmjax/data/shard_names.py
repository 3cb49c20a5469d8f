"""The names of many shards from one pattern, `shards/{00000..01023}.tar` or `shards/*.tar`, without a list of them."""

import glob
import itertools
import os
import re
from collections.abc import Sequence

from mmjax.errors import UserError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


class ShardNames(Sequence[str]):
    """The names that a pattern stands for, in the pattern's order: `{000..127}` counts, as wide as it is written,
    `{a,b}` names each, the last brace fastest; `*` and `?` stand for files that there are, in the alphabet's order.

    Numbers are counted, not listed: a million names take no memory.
    """

    def __init__(self, pattern: str):
        """Raises UserError where a range goes backwards."""
        self.pattern = pattern
        self._parts: list[str] = []
        self._choices: list[range | list[str]] = []
        self._widths: list[int] = []
        end = 0
        for found in _BRACES.finditer(pattern):
            self._parts.append(pattern[end : found.start()])
            end = found.end()
            first, last, several = found.groups()
            if several is not None:
                self._choices.append(several.split(","))
                self._widths.append(0)
                continue
            if int(last) < int(first):
                raise UserError(f"{pattern}: {found[0]} counts backwards: write the smaller number first")
            self._choices.append(range(int(first), int(last) + 1))
            self._widths.append(len(first))
        self._parts.append(pattern[end:])
        self._globbed = self._found() if any(mark in pattern for mark in "*?[") else None

    def _found(self) -> list[str]:
        """The files that match."""
        ways = itertools.product(*self._choices)
        patterns = (self._joined(way) for way in ways)
        return [name for pattern in patterns for name in sorted(glob.glob(os.path.expanduser(pattern)))]

    def __len__(self) -> int:
        if self._globbed is not None:
            return len(self._globbed)
        count = 1
        for choice in self._choices:
            count *= len(choice)
        return count

    def __getitem__(self, index: int, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._globbed is not None:
            return self._globbed[index]
        way = []
        for choice in reversed(self._choices):
            index, place = divmod(index, len(choice))
            way.append(choice[place])
        return os.path.expanduser(self._joined(tuple(reversed(way))))

    def _joined(self, way: tuple[int | str, ...]) -> str:
        filled = [each if isinstance(each, str) else f"{each:0{w}}" for each, w in zip(way, self._widths, strict=True)]
        return "".join(itertools.chain.from_iterable(itertools.zip_longest(self._parts, filled, fillvalue="")))

    @property
    def folder(self) -> str:
        """The folder that all names have in common, with the separator at its end; "" where there is none."""
        fixed = self.pattern.partition("{")[0]
        for mark in "*?[":
            fixed = fixed.partition(mark)[0]
        head, separator, _ = fixed.rpartition("/")
        return os.path.expanduser(head + separator)
