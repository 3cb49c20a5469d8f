"""The families of metrics as lines of a command's help."""

import textwrap
from collections.abc import Sequence

from mmjax.runtime.metric_family import MetricFamily

WIDTH = 79  # characters of a line
INDENT = 6


def told_families(listed: Sequence[MetricFamily]) -> str:
    """The families as lines of a help text: the names, and below them the meaning."""
    lines = []
    for each in listed:
        names, meaning = ", ".join(each.names), each.sentence
        lines += textwrap.wrap(names, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        indent = " " * INDENT
        lines += textwrap.wrap(meaning, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)
