"""Numbers that others have published of models that can be loaded by name, and the commands that measure them again.

They are kept in `published.tsv`, by open_clip's name of the model; the same weights under other names are known by it.
"""

import csv
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmjax.errors import UserError, nearest, unknown
from mmjax.interop import hub
from mmjax.interop.open_clip import names as open_clip_names

COLUMNS = ("model", "benchmark", "split", "metric", "value", "source")

# Other names of the same weights, besides open_clip's own repositories: those of Hugging Face's own
# layout, and the arrays of big_vision that both were made of.
_SIGLIP = "gs://big_vision/siglip/webli_en_"
ALSO: Mapping[str, tuple[str, ...]] = {
    "open_clip:ViT-B-32/openai": ("hf:openai/clip-vit-base-patch32",),
    "open_clip:ViT-B-16/openai": ("hf:openai/clip-vit-base-patch16",),
    "open_clip:ViT-L-14/openai": ("hf:openai/clip-vit-large-patch14",),
    "open_clip:ViT-L-14-336/openai": ("hf:openai/clip-vit-large-patch14-336",),
    "open_clip:ViT-B-16-SigLIP/webli": (
        "hf:google/siglip-base-patch16-224",
        f"bv:{_SIGLIP}b16_224_63724782.npz",
    ),
    "open_clip:ViT-B-16-SigLIP-256/webli": (
        "hf:google/siglip-base-patch16-256",
        f"bv:{_SIGLIP}b16_256_60500360.npz",
    ),
    "open_clip:ViT-B-16-SigLIP-384/webli": (
        "hf:google/siglip-base-patch16-384",
        f"bv:{_SIGLIP}b16_384_68578854.npz",
    ),
    "open_clip:ViT-B-16-SigLIP-512/webli": (
        "hf:google/siglip-base-patch16-512",
        f"bv:{_SIGLIP}b16_512_68580893.npz",
    ),
    "open_clip:ViT-L-16-SigLIP-256/webli": (
        "hf:google/siglip-large-patch16-256",
        f"bv:{_SIGLIP}l16_256_60552751.npz",
    ),
    "open_clip:ViT-L-16-SigLIP-384/webli": (
        "hf:google/siglip-large-patch16-384",
        f"bv:{_SIGLIP}l16_384_63634585.npz",
    ),
    "open_clip:ViT-SO400M-14-SigLIP/webli": (
        "hf:google/siglip-so400m-patch14-224",
        f"bv:{_SIGLIP}so400m_224_57633886.npz",
    ),
    "open_clip:ViT-SO400M-14-SigLIP-384/webli": (
        "hf:google/siglip-so400m-patch14-384",
        f"bv:{_SIGLIP}so400m_384_58765454.npz",
    ),
}


@dataclass(frozen=True)
class Published:
    """A line of the table: `value`, a share, is the `metric` of a model on a split of a benchmark, according to
    `source`.
    """

    model: str
    benchmark: str
    split: str
    metric: str
    value: float
    source: str

    def command(self, model: str | None = None) -> str:
        """The command that measures the number again. model: another name of the model."""
        evaluator = self.metric.partition("/")[0]
        return shlex.join(["mmjax", "evaluate", model or self.model, "--on", self.benchmark, "--evaluators", evaluator])


@cache
def every() -> tuple[Published, ...]:
    """All lines of the table, in its order."""
    text = resources.files("mmjax.evaluate").joinpath("published.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Published(**{**row, "value": float(row["value"])}) for row in csv.DictReader(lines, delimiter="\t"))


@cache
def _names() -> dict[str, str]:
    """The name in the table of every name of a model, without a revision."""
    known: dict[str, str] = {}
    for model in dict.fromkeys(row.model for row in every()):
        place = model.removeprefix("open_clip:")
        known |= dict.fromkeys((model, f"hf:{open_clip_names.repository_of(place)}", *ALSO.get(model, ())), model)
    return known


def model_of(name: str) -> str | None:
    """The model of the table with this name, with a revision or without; None where it isn't in the table.

    Revisions are ignored: published numbers don't name the one that was measured.
    """
    if not hub.is_name(name):
        return None
    parsed = hub.parsed(name)
    plain = f"{parsed.kind}:{parsed.place}"
    if parsed.kind == "open_clip":  # open_clip has several names and spellings for one repository
        try:
            plain = f"hf:{open_clip_names.repository_of(parsed.place)}"
        except UserError:
            return None
    return _names().get(plain)


def beside(
    name: str, benchmark: str, results: Mapping[str, Mapping[str, float]], evaluators: Iterable[Any]
) -> list[dict[str, Any]]:
    """The published numbers for those in `results`: dicts of split, metric, measured, published, difference, source.

    results: by split and flat name.  evaluators: those with the benchmark's settings; other numbers are left out.
    """
    model = model_of(name)
    judged = {(evaluator.split, evaluator.name) for evaluator in evaluators}
    found: list[dict[str, Any]] = []
    for row in every():
        if row.model != model or row.benchmark != benchmark:
            continue
        measured = results.get(row.split, {}).get(row.metric)
        if measured is None or (row.split, row.metric.partition("/")[0]) not in judged:
            continue
        found.append(
            {
                "split": row.split,
                "metric": row.metric,
                "measured": measured,
                "published": row.value,
                "difference": measured - row.value,
                "source": row.source,
            }
        )
    return found


def show(console: Console, rows: Sequence[Mapping[str, Any]], model: str, benchmark: str) -> None:
    """Prints the rows of `beside`. model: its name, with the revision that was measured."""
    made = Table()
    made.add_column("", no_wrap=True)
    for column in ("measured", "published", "difference"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("source")
    for row in rows:
        shares = f"{row['measured']:.4f}", f"{row['published']:.4f}", f"{row['difference']:+.4f}"  # published with four
        made.add_row(Text(row["metric"]), *shares, Text(row["source"]))
    console.print(Text(f"{benchmark} by {model}, beside what is published"), soft_wrap=True)
    console.print(made)


def listing(name: str | None = None, benchmark: str | None = None) -> list[dict[str, Any]]:
    """The lines of the table, each with the command that measures it again. name, benchmark: only lines of these.

    Raises:
        UserError: nothing is published of that model or benchmark.
    """
    model = None if name is None else model_of(name)
    if name is not None and model is None:
        raise UserError(f"no published numbers of {name!r} are known here{nearest(name, _names())}")
    known = dict.fromkeys(row.benchmark for row in every())
    if benchmark is not None and benchmark not in known:
        raise UserError(unknown("--on", benchmark, known, "benchmarks with published numbers"))
    chosen = [row for row in every() if model in (None, row.model) and benchmark in (None, row.benchmark)]
    return [{**{column: getattr(row, column) for column in COLUMNS}, "command": row.command(name)} for row in chosen]


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A listing as text, a line each: the number, the metric, the command; and the sources."""
    width = max((len(row["metric"]) for row in rows), default=0)
    sources = dict.fromkeys(row["source"] for row in rows)
    said = [f"{row['value']:.4f}  {row['metric']:{width}}  {row['command']}" for row in rows]
    return [*said, f"{len(rows)} numbers, from {', '.join(sources)}"]
