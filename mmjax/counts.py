"""How much an evaluation judged: the names of counts among its metrics, and sentences that tell them.

`retrieval/image->text/queries` is no score but says of how many the scores beside it are. Counts are metrics like
others in files; tables leave their columns to the scores, and tell counts in lines below.
"""

from collections.abc import Mapping

QUERIES, CANDIDATES = "queries", "candidates"  # of retrieval
EXAMPLES, CLASSES = "examples", "classes"  # of classification
LEFT_OUT = "left_out"  # examples that couldn't be judged, for they have no label (or none of the classes)
NOT_FINITE = "not_finite"  # of those that were judged, how many have an embedding that isn't finite
CHANCE = "chance"  # what answers at random would give: retrieval's R@1, of classification the first score (top1, mAP)
NAMES = (QUERIES, CANDIDATES, EXAMPLES, CLASSES, LEFT_OUT, NOT_FINITE, CHANCE)

NOUNS = {"image": "picture", "text": "caption", "audio": "sound"}


def is_count(name: str) -> bool:
    """Whether a metric says how much was judged, by its name."""
    return any(part in NAMES for part in name.split("/"))


def is_whole(name: str) -> bool:
    """Whether a metric is a number of things: a count, but for the score of answers at random."""
    return is_count(name) and name.rpartition("/")[2] != CHANCE


def told(metrics: Mapping[str, float | None]) -> list[str]:
    """A sentence for each row of a table whose metrics have counts, such as
    `retrieval/image->text: 100 pictures, among 500 captions; R@1 at random 0.010`."""
    rows: dict[str, dict[str, float]] = {}
    first: dict[str, str] = {}
    for name, value in metrics.items():
        row, _, last = name.rpartition("/")
        if last not in NAMES:
            first.setdefault(row, last)
        elif value is not None:
            rows.setdefault(row, {})[last] = value
    return [f"{row}: {_sentence(row, counts, first.get(row, ''))}" for row, counts in rows.items()]


def _sentence(row: str, counts: Mapping[str, float], first: str) -> str:
    parts = []
    if QUERIES in counts and CANDIDATES in counts:
        source, _, target = row.rpartition("/")[2].partition("->")
        parts.append(f"{of(counts[QUERIES], noun(source))}, among {of(counts[CANDIDATES], noun(target))}")
    if EXAMPLES in counts:
        among = f" in {of(counts[CLASSES], 'class', 'classes')}" if CLASSES in counts else ""
        parts.append(f"{of(counts[EXAMPLES], 'example')}{among}")
    if counts.get(LEFT_OUT):
        verb = "is" if counts[LEFT_OUT] == 1 else "are"
        parts.append(f"{counts[LEFT_OUT]:,.0f} without a label {verb} left out")
    if counts.get(NOT_FINITE):
        parts.append(f"{counts[NOT_FINITE]:,.0f} embeddings aren't finite (NaN) and count as wrong")
    if CHANCE in counts:
        score = "R@1" if QUERIES in counts else first  # also where a `Retrieval(at=...)` gives no R@1
        parts.append(f"{score} at random {counts[CHANCE]:.3f}".strip())
    return "; ".join(parts)


def noun(modality: str) -> str:
    """What one example of a modality is called."""
    return NOUNS.get(modality, modality)


def of(count: float, one: str, several: str = "") -> str:
    """`1 picture`, `5,000 captions`."""
    return f"{count:,.0f} {one if count == 1 else several or one + 's'}"


def scores(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics that aren't counts."""
    return {name: value for name, value in metrics.items() if not is_count(name)}
