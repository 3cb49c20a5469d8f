"""The gallery: examples that don't depend on the model, and pictures that show the right ones framed."""

import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.gallery import RIGHT, Gallery, draw_curves
from tests.evaluate.metrics.test_ranks import unit

HISTORY = [
    *({"step": s, "loss": 3 / s, "pair/loss": None if s == 2 else 1 / s, "lr": 1.0} for s in (1, 2, 3)),
    {"step": 3, "split": "validation", "retrieval/image->text/R@1": 0.5},
]


def split(workdir, n: int = 12, seed: int = 0, right: bool = True) -> Embedded:
    rng = np.random.default_rng(seed)
    image = unit(rng, n, 16)
    other = image if right else -image
    return Embedded(
        {"image": image, "text": other, "audio": other},
        {m: np.ones(n, bool) for m in ("image", "text", "audio")},
        {"text": [f"name {i}" for i in range(n)]},
        {"image": rng.integers(0, 99, (n, 8, 8, 3)).astype(np.uint8)},  # dark: no green but the frames'
        "test",
        HISTORY,
        workdir,
    )


def framed(path) -> int:
    """Pixels of the colour that marks what is right."""
    green = np.array([int(RIGHT[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - green).max(-1) < 8).sum())


def test_what_is_right_is_framed_green(tmp_path):
    sizes = []
    for right in (True, False):
        assert Gallery(rows=3)(split(tmp_path, right=right), lambda _: np.zeros((0, 16))) == {}
        sizes.append(framed(tmp_path / "gallery-test.png"))
    assert sizes[0] > 1000
    assert sizes[1] == 0
    assert Image.open(tmp_path / "curves.png").size[0] > 1000


def test_examples_are_chosen_without_looking_at_the_model(tmp_path):
    gallery = Gallery(rows=4)
    good, bad = split(tmp_path, 50), split(tmp_path, 50, seed=7, right=False)
    rows = gallery.chosen(good, "text", "image")
    assert rows.tolist() == gallery.chosen(bad, "text", "image").tolist()
    assert rows.tolist() != Gallery(rows=4, seed=1).chosen(good, "text", "image").tolist()
    good.valid["text"][rows] = False
    assert not set(rows) & set(gallery.chosen(good, "text", "image"))


def test_without_pictures_or_a_workdir_nothing_is_drawn(tmp_path):
    data = split(tmp_path)
    data.valid["image"][:] = False
    Gallery()(data, lambda _: np.zeros((0, 16)))
    assert not list(tmp_path.iterdir())


def test_a_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r'pip install "mmjax\[demo\]"'):
        draw_curves(HISTORY, tmp_path / "curves.png")
