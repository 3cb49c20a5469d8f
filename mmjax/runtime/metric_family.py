"""A family of metrics: names that share a meaning, and which values are better."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal


@dataclass(frozen=True)
class MetricFamily:
    """Names of metrics that share a meaning.

    names: with `<...>` for the parts that vary.  meaning: half a sentence, which begins small and ends without a full
    stop.
    better: which values are; None: it tells how a run goes, and is no score.  group: TensorBoard's group; "": that of
    its name's first part.
    """

    names: tuple[str, ...]
    meaning: str
    better: Literal["higher", "lower"] | None = None
    group: str = ""

    @property
    def sentence(self) -> str:
        """The meaning, and which values are better, as a sentence."""
        better = "" if self.better is None else f"; {self.better} is better"
        return f"{self.meaning}{better}."

    def fits(self, name: str) -> int:
        """The number of `<...>` parts, plus one, of the family's name that a metric's name matches; 0: none matches."""
        return max((each.count("<") + 1 for each in self.names if _pattern(each).fullmatch(name)), default=0)


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("".join(_varying(part) for part in re.split(r"(<\w+>)", name)))


def _varying(part: str) -> str:
    if part in ("<objective>", "<modality>"):  # names in an experiment, without a slash; a label may have one
        return r"[^/]+"
    if part in ("<k>", "<n>"):
        return r"\d+"
    return ".+" if part.startswith("<") else re.escape(part)
