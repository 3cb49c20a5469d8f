"""Samples of what a model wrote, under their pictures and sounds."""

from itertools import groupby

from mmjax.evaluate.report.findings import Findings
from mmjax.evaluate.report.markup import Markup, short, tag
from mmjax.evaluate.report.media import Media, silent
from mmjax.evaluate.samples import SampleLine

WRITING = "What was written of a few examples, evenly spaced over the split. What is judged right has a tick."
SIDE = 128  # pixels of a picture
LETTERS = 400  # of a line


def written_samples(found: Findings, media: Media) -> Markup | None:
    """Each example's pictures and sounds with the lines under them, by the evaluator; None where there are none."""
    made = []
    for name, group in groupby(found.samples, key=lambda sample: sample.name):
        made.append(tag("h4", name))
        for sample in group:
            valid = found.embedded.valid
            there = [entry for entry in valid if valid[entry][sample.row] and not media.kind(entry).words]
            shown = [media.show(sample.row, entry, SIDE) for entry in there]
            lines = tag("ul", [_line(line) for line in sample.lines], class_="lines")
            made.append(tag("div", tag("figure", shown), lines, class_="query"))
    return tag("div", made, class_="written") if made else None


def _line(line: SampleLine) -> Markup:
    ticked = [] if line.right is None else [tag("b", " ✓" if line.right else " ✗"), silent(_judged(line.right))]
    return tag("li", tag("span", f"{line.said}: ", class_="soft"), tag("q", short(line.text, LETTERS)), ticked)


def _judged(right: bool) -> str:
    return "right" if right else "wrong"
