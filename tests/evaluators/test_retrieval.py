"""Retrieval against its definition, with missing modalities and repeated captions."""

from itertools import permutations

import numpy as np
import pytest

from mmjax.evaluators.embedded import Embedded
from mmjax.evaluators.retrieval import Retrieval
from tests.evaluators.test_ranking import brute_force, unit

MODALITIES = ("image", "text", "audio")


def no_text(strings):
    raise AssertionError("retrieval asks for no prompts")


def embedded(n: int = 60, seed: int = 0, missing: float = 0.0, columns: dict | None = None) -> Embedded:
    rng = np.random.default_rng(seed)
    core = rng.normal(size=(n, 6))
    vectors = {}
    for modality in MODALITIES:
        x = core + 0.7 * rng.normal(size=core.shape)
        vectors[modality] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Embedded(vectors, {m: rng.random(n) >= missing for m in MODALITIES}, columns or {})


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_all_six_directions_equal_brute_force(missing):
    split = embedded(missing=missing)
    metrics = Retrieval()(split, no_text)
    assert len(metrics) == 6 * 4
    for a, b in permutations(MODALITIES, 2):
        rows, columns = np.flatnonzero(split.valid[a]), np.flatnonzero(split.valid[b])
        found = np.array(brute_force(split.embeddings[a][rows], split.embeddings[b][columns], rows, columns))
        found = found[found > 0]
        assert len(found) == (split.valid[a] & split.valid[b]).sum()
        for k in (1, 5, 10):
            assert metrics[f"retrieval/{a}->{b}/R@{k}"] == np.mean(found <= k)
        assert metrics[f"retrieval/{a}->{b}/median_rank"] == np.median(found)


def test_any_row_of_the_same_caption_is_right():
    n = 40
    split = embedded(n, columns={"text": [f"caption {i // 4}" for i in range(n)]})
    alone, together = Retrieval()(split, no_text), Retrieval(same="text")(split, no_text)
    found = brute_force(split.embeddings["image"], split.embeddings["text"], np.arange(n) // 4, np.arange(n) // 4)
    assert together["retrieval/image->text/R@1"] == np.mean(np.array(found) == 1)
    assert together["retrieval/image->text/R@1"] > alone["retrieval/image->text/R@1"]


def test_a_caption_said_by_another_row_makes_a_query_of_one_that_lacks_it():
    vectors = np.eye(3, dtype=np.float32)
    valid = {"image": np.ones(3, bool), "text": np.array([False, True, True])}
    split = Embedded({"image": vectors, "text": vectors[[1, 0, 2]]}, valid, {"text": ["a", "a", "b"]})
    assert Retrieval(same="text")(split, no_text)["retrieval/image->text/R@1"] == pytest.approx(2 / 3)
    assert Retrieval()(split, no_text)["retrieval/image->text/R@1"] == 0.5  # the first has no caption of its own


def test_a_direction_that_no_example_has_is_left_out():
    split = embedded(4)
    split.valid["audio"][:] = False
    assert {name.split("/")[1] for name in Retrieval()(split, no_text)} == {"image->text", "text->image"}


def test_collapsed_embeddings_have_no_recall():
    constant = np.tile(unit(np.random.default_rng(0), 1, 5), (50, 1))
    split = Embedded(dict.fromkeys(("image", "text"), constant), dict.fromkeys(("image", "text"), np.ones(50, bool)))
    metrics = Retrieval()(split, no_text)
    assert metrics["retrieval/image->text/R@10"] == 0
    assert metrics["retrieval/image->text/median_rank"] == 50


def test_an_unknown_column_names_those_there_are():
    with pytest.raises(ValueError, match=r"'caption'.*group, text"):
        Retrieval(same="caption")(embedded(4, columns={"text": ["a"] * 4, "group": ["a"] * 4}), no_text)
