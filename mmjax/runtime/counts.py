"""Names the counts among an evaluation's metrics (how much it judged), and writes sentences of them.

`retrieval/image->text/queries` is no score, but the number of queries of the scores beside it. Counts are metrics like
others in files; tables have columns for scores, and counts in lines below.
"""

from collections.abc import Iterable, Mapping

QUERIES, CANDIDATES = "queries", "candidates"  # of retrieval
EXAMPLES, CLASSES = "examples", "classes"  # of classification
LEFT_OUT = "left_out"  # examples that couldn't be judged, for they have no label (or none of the classes)
NOT_FINITE = "not_finite"  # judged examples whose embedding isn't finite
CHANCE = "chance"  # the score of random answers: R@1 of retrieval, the first score (top1, mAP) of classification
CHANCE_OF = "chance_"  # the same of another score: `chance_R@5`
NAMES = (QUERIES, CANDIDATES, EXAMPLES, CLASSES, LEFT_OUT, NOT_FINITE, CHANCE)

NOUNS = {"image": "picture", "text": "caption", "audio": "sound", "speech": "utterance"}


def is_count(name: str) -> bool:
    """True if a metric counts what was judged. Its name's last part decides, so a label may be called `classes`."""
    last = name.rpartition("/")[2]
    return last in NAMES or last.startswith(CHANCE_OF)


def is_whole(name: str) -> bool:
    """True if a metric is an integer: every count except the scores of random answers."""
    return is_count(name) and not name.rpartition("/")[2].startswith(CHANCE)


def told(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """Writes a sentence for each row of a table whose metrics have counts, by row, such as `retrieval/image->text: 100
    pictures, among 500 captions; at random R@1 0.010, R@5 0.049`.
    """
    rows: dict[str, dict[str, float]] = {}
    first: dict[str, str] = {}
    for name, value in metrics.items():
        row, _, last = name.rpartition("/")
        if not is_count(name):
            first.setdefault(row, last)
        elif value is not None:
            rows.setdefault(row, {})[last] = value
    return {row: f"{row}: {_sentence(row, counts, _first(row, first))}" for row, counts in rows.items()}


def below(sentences: Mapping[str, str], rows: Iterable[str]) -> list[str]:
    """The sentences (of `told`) that belong to these rows, each once.

    A row that has no counts of its own (`probe/kind/5shot`, `knn/kind/top1` with a column for each fold) was judged on
    the same examples as the row above it in name, `probe/kind`.
    """
    found = []
    for row in rows:
        while row and row not in sentences:
            row = row.rpartition("/")[0]
        found += [sentences[row]] if row in sentences else []
    return list(dict.fromkeys(found))


def _first(row: str, first: Mapping[str, str]) -> str:
    """The first score of a row; of one that has none, that of the first row below it in name."""
    return next((last for name, last in first.items() if name == row or name.startswith(f"{row}/")), "")


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
    first = "R@1" if QUERIES in counts else first  # also where a `Retrieval(at=...)` gives no R@1
    chances = {first if name == CHANCE else name.removeprefix(CHANCE_OF): counts[name] for name in counts
               if name.startswith(CHANCE)}  # fmt: skip
    if chances:
        parts.append("at random " + ", ".join(f"{name} {_chance(name, value)}" for name, value in chances.items()))
    return "; ".join(parts)


def _chance(score: str, value: float) -> str:
    return f"{value:,.1f}" if score.endswith("rank") else f"{value:.3f}"


def noun(modality: str) -> str:
    """The noun for one example of a modality, such as "picture"."""
    return NOUNS.get(modality, modality)


def of(count: float, one: str, several: str = "") -> str:
    """A number with its noun: `1 picture`, `5,000 captions`."""
    return f"{count:,.0f} {one if count == 1 else several or one + 's'}"


def scores(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics that aren't counts."""
    return {name: value for name, value in metrics.items() if not is_count(name)}
