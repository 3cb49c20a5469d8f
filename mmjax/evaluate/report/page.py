"""The page: one file of HTML that needs no network, can be printed, and says how it was made."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.evaluate.report.confusions import confusion
from mmjax.evaluate.report.examples import COMPARED, MAPPED, embedding_map, retrievals, similarities
from mmjax.evaluate.report.findings import Findings
from mmjax.evaluate.report.looks import word_looks
from mmjax.evaluate.report.markup import Markup, join, tag
from mmjax.evaluate.report.media import BUDGET, SECONDS, Media
from mmjax.evaluate.report.retrievals import ASKED, RULE
from mmjax.evaluate.report.samples import WRITING, written_samples
from mmjax.evaluate.report.tables import compared, curves, drawn, meanings, number_tables
from mmjax.runtime.counts import noun
from mmjax.runtime.files import output

SIMILARITY = (
    f"Cosine similarities of up to {COMPARED} examples, drawn at random with a fixed seed and ordered by label. Right "
    "pairs are the diagonal, which is framed: each should be the brightest of its row and column."
)
PUBLISHED = "What others have published of this model on this data, beside what was measured here."
CLASSIFICATION = "Which class each example was taken for. A framed cell is right."
ATTENTION = (
    "What each word looks at in its picture, of a few examples, evenly spaced over the split: how relevant patches are "
    "for the word, by the weights of the fusion's attention times the gradient of the objective's score (Chefer et al. "
    "2021, arXiv:2103.15679). Of each word the patch that is looked at most is as bright as in the picture."
)
MAP = (
    f"Embeddings of up to {MAPPED} examples of each split, drawn at random with a fixed seed, by their first two "
    "principal components. Embeddings of different modalities usually lie apart; with each modality centred about its "
    "own mean they show whether examples of the same kind lie together."
)


@dataclass(frozen=True)
class About:
    """The description of the model on a page. facts: lines of a name and a value, for its head. beside: published
    numbers, dicts as in `tables.compared`.
    """

    title: str
    step: int | None
    facts: Sequence[tuple[str, str]] = ()
    beside: Sequence[Mapping[str, Any]] = ()


def write_page(
    path: str | Path,
    about: About,
    findings: Sequence[Findings],
    history: Sequence[Mapping[str, Any]],
    budget: int = BUDGET,
) -> Path:
    """Writes the page atomically. history: the run's metrics, for the curves. budget: bytes of media."""
    path = Path(path)
    output.write(path, page(about, findings, history, budget))
    return path


def page(
    about: About, findings: Sequence[Findings], history: Sequence[Mapping[str, Any]], budget: int = BUDGET
) -> Markup:
    """The page's HTML."""
    left = [budget]
    media = [Media(found.raw, found.embedded, str(i), left, found.heard) for i, found in enumerate(findings)]
    pairs = list(zip(findings, media, strict=True))
    sections: list[tuple[str, str, Any]] = [
        ("Numbers", "", _numbers(findings)),
        ("Published", PUBLISHED, compared(about.beside)),
        ("Training", "", _training(history)),
        ("Retrieval", RULE, _by_split([(f, retrievals(f, m)) for f, m in pairs])),
        ("Similarity", SIMILARITY, _by_split([(f, [_panels(similarities(f, m))]) for f, m in pairs])),
        ("Classification", CLASSIFICATION, _by_split([(f, [confusion(c) for c in f.classified]) for f in findings])),
        ("Writing", WRITING, _by_split([(f, [written_samples(f, m)]) for f, m in pairs])),
        ("Attention", ATTENTION, _by_split([(f, [word_looks(f, m)]) for f, m in pairs])),
        ("Map", MAP, _by_split([(f, [embedding_map(f, m)]) for f, m in pairs])),
        ("Videos", "", _by_split([(f, [m.clips()]) for f, m in pairs])),  # last, since these list what is shown above
        ("Sounds", "", _by_split([(f, [m.sounds()]) for f, m in pairs])),
    ]
    there = [
        (name, [tag("p", text, class_="soft")] * bool(text) + [content]) for name, text, content in sections if content
    ]
    links = [tag("li", tag("a", name, href=f"#{name.lower()}")) for name, _ in there]
    body = join(
        tag("header", _head(about, findings), tag("nav", tag("ul", links), aria_label="Contents")),
        tag("main", [tag("section", tag("h2", name, id=name.lower()), content) for name, content in there]),
        _foot(media),
    )
    return _document(about.title + ("" if about.step is None else f", step {about.step:,}"), body)


def _numbers(findings: Sequence[Findings]) -> Markup | None:
    """The tables, and once for all splits the meanings of their metrics."""
    made = _by_split([(found, number_tables(found.numbers, found.protocols)) for found in findings])
    said = meanings(dict.fromkeys(name for found in findings for name in found.numbers), evaluation=True)
    if made is None or said is None:
        return made
    return join(made, tag("section", tag("h3", "What the numbers mean"), said))


def _training(history: Sequence[Mapping[str, Any]]) -> Markup | None:
    charts = _panels(curves(history))
    return None if charts is None else join(charts, meanings(drawn(history), evaluation=False))


def _panels(figures: Sequence[Markup]) -> Markup | None:
    return tag("div", figures, class_="panels") if figures else None


def _by_split(parts: Sequence[tuple[Findings, Sequence[Markup | None]]]) -> Markup | None:
    """The parts of each split, under its name."""
    there = [(found, [part for part in made if part]) for found, made in parts]
    made = [tag("section", tag("h3", f"{found.split} split"), content) for found, content in there if content]
    return join(made) if made else None


def _head(about: About, findings: Sequence[Findings]) -> Markup:
    def described(found: Findings) -> str:
        valid = found.embedded.valid
        counts = [f"{np.sum(rows):,} {noun(modality)}s" for modality, rows in valid.items()]
        return f"{len(found.embedded):,} examples: {', '.join(counts)}"

    facts = [*about.facts, *((f"{found.split} split", described(found)) for found in findings)]
    facts.append(("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))
    rows = [[tag("dt", name), tag("dd", value)] for name, value in facts]
    return join(
        tag("h1", about.title),
        tag(
            "p",
            "Evaluation" + ("" if about.step is None else f" of the checkpoint of step {about.step:,}"),
            class_="soft",
        ),
        tag("dl", rows, class_="facts"),
    )


def _foot(media: Sequence[Media]) -> Markup:
    left_out = sum(each.left_out for each in media)
    said = (
        "Numbers are of whole splits. What is drawn is a sample, so that the page stays small: up to "
        f"{ASKED:,} queries of a direction, {COMPARED} examples of a heat map, {MAPPED} of a map. Pictures are made "
        f"small, and sounds and videos are cut after {SECONDS} seconds."
    )
    if left_out:
        said += f" {left_out:,} more pictures and sounds were left out for want of space."
    return tag("footer", tag("p", said), tag("p", "Written by mmjax evaluate --report."))


def _document(title: str, body: Markup) -> Markup:
    style, script = (_file(name) for name in ("style.css", "script.js"))
    # The policy forbids fetching anything and running other scripts, whatever a caption holds.
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src '{_digest(script)}'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", style),
    )
    return join(Markup("<!doctype html>\n"), tag("html", head, tag("body", body, tag("script", script)), lang="en"))


def _file(name: str) -> Markup:
    return Markup(resources.files("mmjax.evaluate.report").joinpath(name).read_text(encoding="utf-8"))


def _digest(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
