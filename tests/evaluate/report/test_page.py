"""The page: what stands in it, that it needs nothing else, and how it behaves in a browser."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.evaluate.report.page import About, page, write_page
from tests.evaluate.report.made import ATTACK, made

BROWSER = Path(__file__).parents[2] / "browser.py"
HISTORY = [{"step": s, "loss": 5.0 / s, "lr": 0.1} for s in range(1, 5)] + [
    {"step": s, "split": "test", "retrieval/text->image/R@1": s / 10} for s in (2, 4)
]
ABOUT = About("<tiny>", 1200, [("workdir", f"runs/{ATTACK}")])


def browse(page: Path, *scripts: Any, **asked: Any) -> dict[str, Any]:
    """What `tests/browser.py` says of a page."""
    pytest.importorskip("PySide6.QtWebEngineCore", exc_type=ImportError)
    given = json.dumps({"page": str(page), "scripts": scripts, **asked})
    done = subprocess.run(
        [sys.executable, str(BROWSER), given], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class Tags(HTMLParser):
    """Elements with their attributes; complains of those that are closed in the wrong order."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in names]


@pytest.mark.parametrize("modalities", [("image", "text"), ("image", "text", "audio"), ("text", "audio"), ("image",)])
def test_whatever_the_modalities_the_page_is_whole_and_needs_nothing_else(modalities):
    html = page(ABOUT, [made(modalities=modalities)], HISTORY)
    tags = Tags(html)
    sources = [a[name] for _, a in tags.found for name in ("src", "href") if name in a]
    assert all(source is not None and source.startswith(("data:", "#")) for source in sources)
    assert all(a.get("alt") is not None for a in tags.named("img"))
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids))
    links = {source[1:] for source in sources if source is not None and source.startswith("#")}
    assert links <= set(ids)
    assert bool(tags.named("audio")) == ("audio" in modalities)
    assert len(tags.named("h1")) == len(tags.named("main")) == 1
    assert {"numbers", "training", "classification", "map"} <= set(ids)
    assert ("retrieval" in ids) == (len(modalities) > 1)


def test_the_numbers_are_explained_once_for_all_splits():
    first = made()
    other = replace(first, embedded=replace(first.embedded, split="validation"))
    html = page(ABOUT, [first, other], HISTORY)
    assert html.count("Recall at k, the share of queries with a right answer among the first k; higher is better.") == 1
    assert (
        html.count("The share of examples whose class is the first found, or among the first five; higher is better.")
        == 1
    )
    assert "What is minimised: the objectives&#x27; losses, times their weights; lower is better." in html
    assert re.search(r"picture → caption</strong><span[^>]*>R@1 \d\.\d{3}, at random 0\.050; median rank", html, re.I)
    assert "What the numbers mean" in html
    assert "What the numbers mean" not in page(ABOUT, [replace(first, numbers={})], [])


def test_a_page_of_nothing():
    empty = made(1, ("image",))
    empty = replace(
        empty, numbers={}, classified=[], embedded=replace(empty.embedded, valid={"image": np.zeros(1, bool)})
    )
    html = page(About("empty", 0), [empty], [])
    assert "1 examples: 0 pictures" in html
    Tags(html)
    assert "<nav" in html


def test_a_big_split_gives_a_small_page(tmp_path):
    """50,000 examples with pictures of noise, which don't compress."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 200, 200, 3), np.uint8)
    found = replace(made(50_000, ("image", "text")), raw=lambda row, column: noise[row % 16])
    path = write_page(tmp_path / "big.html", About("big", 1), [found], [])
    assert path.stat().st_size < 10e6
    assert "2,000 of 50,000 queries asked here" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["big.html"]


def test_what_goes_beyond_the_budget_is_left_out_and_counted():
    whole, cut = (page(ABOUT, [made()], [], budget=budget) for budget in (10**7, 30_000))
    media = sum(len(source) for source in re.findall(r'"(data:[^"]*)"', cut))
    assert 20_000 < media <= 30_000
    assert re.search(r"[1-9]\d* more pictures and sounds were left out", cut)
    assert "left out" not in whole


def test_in_a_browser_it_shows_and_plays(tmp_path):
    path = write_page(tmp_path / "page.html", ABOUT, [made()], HISTORY)
    tip = "(t => t.hidden ? null : t.innerHTML)(document.getElementById('tip'))"
    seen = browse(
        path,
        "document.title",
        "document.querySelector('.numbers').innerText",
        "(a => { a.preload = 'metadata'; return a.duration || null; })(document.querySelector('audio'))",
        ["move", ".plane path[data-row]"],
        tip,
        ["move", "svg[data-lines]"],
        tip,
        "document.querySelectorAll('details.direction').forEach(d => { d.open = true; }); 'open'",
        ["click", "a.play"],
        "document.querySelectorAll('a.playing').length || null",
        "[...document.querySelectorAll('audio')].some(a => !a.paused && a.currentTime >= 0) ? 'plays' : null",
        ["click", ".by-label"],
        "getComputedStyle(document.querySelector('.labels')).display.replace('none', '')",
        ["click", ".centre"],
        "getComputedStyle(document.querySelector('.plane.plain')).display.replace('block', '')",
        FITS,
        BELOW,
        width=1200,
    )  # fmt: skip
    title, numbers, seconds, point, line, _, playing, plays, labels, plain, fits, below = seen["results"]
    assert (seen["loaded"], seen["console"], seen["requests"]) == ([True], [], [])
    assert title == "<tiny>, step 1,200"
    assert "0.750" in numbers
    assert abs(seconds - 0.5) < 0.05
    assert "<img" in point
    assert "thing" in point
    assert re.match(r"step \d\nloss +[\d.]+", line)
    assert (playing, plays, labels, plain, fits, below) == (1, "plays", "flex", "none", "fits", 0)


# Of what a phone shows: the page's width, the names of sounds that aren't beside their players, and numbers of charts
# that are cut off at their drawing's edge.
FITS = "document.documentElement.scrollWidth <= innerWidth ? 'fits' : document.documentElement.scrollWidth"
BELOW = """[...document.querySelectorAll('.sounds li')].filter(li => {
  const [player, name] = [...li.children].map(e => e.getBoundingClientRect());
  return name.left < player.right || name.bottom < player.top || name.top > player.bottom;
}).length"""
CUT_OFF = """[...document.querySelectorAll('svg.chart text')].filter(text => {
  const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
  return inner.left < outer.left || inner.right > outer.right;
}).map(text => text.textContent).join() || 'none'"""


def long_names() -> list[str]:
    return [f"thing {i} of a name that goes on for longer than any line of a phone" for i in range(20)]


def test_on_a_phone_in_the_dark_it_fits(tmp_path):
    rates = [{"step": s, "loss": 5.0, "lr": s * 5e-8, "examples_per_second": 1.2e6} for s in (1, 10_000)]
    names = [f"retrieval/{a}->{b}/R@{k}" for k in (1, 5, 10) for a, b in (("image", "text"), ("text", "image"))]
    found = replace(made(text=long_names()), numbers={name: i / 9 for i, name in enumerate(names)})  # a best one, too
    seen = browse(
        write_page(tmp_path / "page.html", ABOUT, [found], rates),
        FITS,
        "getComputedStyle(document.body).backgroundColor",
        "document.querySelector('.folded > summary').innerText",
        "document.querySelector('.folded').open ? 'open' : 'folded'",
        "document.querySelector('.folded').open = true; 'opened'",
        BELOW,
        CUT_OFF,
        FITS,
        width=400,
        dark=True,
    )
    assert seen["results"] == [
        *("fits", "rgb(20, 23, 27)", "17 sounds, all that are shown above", "folded", "opened", 0, "none", "fits")
    ]
    assert seen["console"] == []


def test_pages_of_no_step_one_step_and_many():
    histories = {0: [], 1: [{"step": 1, "loss": 2.0, "lr": 1e-3, "examples_per_second": None}]}
    histories[10_000] = [{"step": s, "loss": 2.0 + s % 2, "lr": 1e-4} for s in range(1, 10_001)]
    pages = {steps: page(ABOUT, [made(4)], history) for steps, history in histories.items()}
    for steps, html in pages.items():
        Tags(html)
        assert html.count("data-lines=") == (2 if steps else 0)  # loss and learning rate
        assert ('id="training"' in html) == bool(steps)
    assert "loss from 2 at step 1 to 2 at 1" in pages[1]
    assert "loss from 3 at step 1 to 2 at 10,000" in pages[10_000]
    assert len(pages[10_000]) < len(pages[1]) + 60_000  # 300 points a line


def test_what_a_caption_a_label_or_a_file_name_holds_is_text(tmp_path):
    found = made(
        text=[f"{ATTACK} {i}" for i in range(20)], kind=[ATTACK, "b"] * 10, id=[f"{ATTACK}{i}" for i in range(20)]
    )
    found = replace(found, numbers={f"{ATTACK}/R@1": 0.5}, embedded=replace(found.embedded, split=ATTACK))
    path = write_page(tmp_path / "page.html", ABOUT, [found], [{"step": 1, f"{ATTACK}/loss": 1.0}])
    html = path.read_text()
    assert len(Tags(html).named("script")) == 1
    assert not [a for _, a in Tags(html).found if any(name.startswith("on") for name in a)]
    seen = browse(path, "document.title", "document.querySelectorAll('script').length", "document.body.innerText")
    title, scripts, text = seen["results"]
    assert title == "<tiny>, step 1,200"
    assert scripts == 1
    assert ATTACK[:30] in text
    assert (seen["console"], seen["requests"]) == ([], [])


def test_a_script_that_got_into_the_page_would_not_run(tmp_path):
    path = write_page(tmp_path / "page.html", ABOUT, [made()], HISTORY)
    spoilt = path.read_text().replace(
        "<main>", '<main><script>document.title="broken"</script><img src="http://localhost:9/x">'
    )
    path.write_text(spoilt)
    seen = browse(path, "document.title")
    assert seen["results"] == ["<tiny>, step 1,200"]
    assert len([line for line in seen["console"] if "Content Security Policy" in line]) == 2
    assert seen["requests"] == []
