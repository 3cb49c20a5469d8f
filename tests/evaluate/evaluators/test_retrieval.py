"""Retrieval against its definition, with missing modalities and repeated captions."""

from dataclasses import replace
from itertools import permutations
from math import comb

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.metrics.pairs import pairs
from mmjax.runtime.counts import is_count
from tests.evaluate.metrics.test_ranks import brute_force, unit

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
    assert len(metrics) == 6 * 10
    for a, b in permutations(MODALITIES, 2):
        rows, columns = np.flatnonzero(split.valid[a]), np.flatnonzero(split.valid[b])
        found = np.array(brute_force(split.embeddings[a][rows], split.embeddings[b][columns], rows, columns))
        found = found[found > 0]
        assert len(found) == (split.valid[a] & split.valid[b]).sum() == metrics[f"retrieval/{a}->{b}/queries"]
        assert metrics[f"retrieval/{a}->{b}/candidates"] == len(columns)
        assert metrics[f"retrieval/{a}->{b}/chance"] == 1 / len(columns)
        assert metrics[f"retrieval/{a}->{b}/chance_median_rank"] == (len(columns) + 1) / 2
        for k in (5, 10):
            assert metrics[f"retrieval/{a}->{b}/chance_R@{k}"] == pytest.approx(k / len(columns))
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
    with pytest.raises(UserError, match=r"'caption'.*group, text"):
        Retrieval(same="caption")(embedded(4, columns={"text": ["a"] * 4, "group": ["a"] * 4}), no_text)


def contents(items: dict) -> dict[str, list[str | None]]:
    return {modality: [str(item) for item in numbers] for modality, numbers in items.items()}


def a_row_a_caption(pictures: int = 30, captions: int = 5, seed: int = 3, noise: float = 1.2) -> Embedded:
    """Flickr30k's layout: a picture stands in the rows of each of its captions."""
    rng = np.random.default_rng(seed)
    image = unit(rng, pictures, 6)
    of = np.repeat(np.arange(pictures), captions)
    text = image[of] + noise * rng.normal(size=(len(of), 6)) / np.sqrt(6)
    vectors = {"image": image[of], "text": (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)}
    columns = {"id": [f"{i}.jpg" for i in of], "text": [f"caption {i}" for i in range(len(of))]}
    return Embedded(
        vectors, dict.fromkeys(vectors, np.ones(len(of), bool)), columns, contents={"image": list(map(str, of))}
    )


def of_papers(split: Embedded, k: int) -> tuple[float, float]:
    """Recall at k of captions for pictures, and of pictures for captions, as CLIP_benchmark defines them: scores of all
    captions by all pictures, and the share of queries with at least one of their own among the k best."""
    of = np.array(split.contents["image"], int)
    pictures = np.stack([split.embeddings["image"][of == i][0] for i in np.unique(of)]).astype(np.float64)
    scores = split.embeddings["text"].astype(np.float64) @ pictures.T
    own = of[:, None] == np.arange(len(pictures))
    hits = []
    for score, mine in ((scores.T, own.T), (scores, own)):
        best = np.argsort(-score, axis=1)[:, :k]
        hits.append(np.take_along_axis(mine, best, axis=1).sum(axis=1) > 0)
    return float(hits[0].mean()), float(hits[1].mean())


def test_rows_of_one_picture_are_one_candidate_as_in_papers():
    split = a_row_a_caption()
    found = Retrieval()(split, no_text)
    for k in (1, 5, 10):
        there, back = of_papers(split, k)
        assert (found[f"retrieval/image->text/R@{k}"], found[f"retrieval/text->image/R@{k}"]) == (there, back)
    assert 0 < found["retrieval/text->image/R@1"] < found["retrieval/text->image/R@5"] < 1
    counts = {name.removeprefix("retrieval/"): value for name, value in found.items() if is_count(name)}
    of_five = {k: 1 - comb(145, k) / comb(150, k) for k in (5, 10, 19, 20)}  # that one of five captions is among k
    assert of_five[19] < 0.5 < of_five[20]
    assert counts == pytest.approx({
        **{"image->text/queries": 30, "image->text/candidates": 150, "image->text/chance": 5 / 150},
        **{f"image->text/chance_R@{k}": of_five[k] for k in (5, 10)}, "image->text/chance_median_rank": 20,
        **{"text->image/queries": 150, "text->image/candidates": 30, "text->image/chance": 1 / 30},
        **{f"text->image/chance_R@{k}": k / 30 for k in (5, 10)}, "text->image/chance_median_rank": 15.5,
    })  # fmt: skip
    # The id that rows share says so too, of embeddings that nothing else is known of.
    assert Retrieval()(replace(split, contents={}), no_text) == found
    named = Retrieval(same="id")(split, no_text)  # its copies don't stand in the ranking either
    assert named == found
    perfect = replace(split, embeddings={"image": split.embeddings["image"], "text": split.embeddings["image"]})
    assert Retrieval()(perfect, no_text)["retrieval/text->image/R@1"] == 1


def test_a_sound_that_goes_with_two_pictures_is_right_for_those_alone():
    """Sound 0 with pictures 0 and 1, sound 1 with picture 0: a chain, no group."""
    image, audio = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    rows = [(0, 0), (1, 0), (0, 1), (2, 2)]
    items = {"image": np.array([a for a, _ in rows]), "audio": np.array([b for _, b in rows])}
    vectors = {"image": image[items["image"]], "audio": audio[[1, 1, 0, 2]]}  # sound 0 is like picture 1
    split = Embedded(vectors, dict.fromkeys(vectors, np.ones(4, bool)), contents=contents(items))
    found = pairs(split, "image", "audio")
    assert found.groups is None
    assert found.right(np.arange(3)).tolist() == [[True, True, False], [True, False, False], [False, False, True]]
    there, back = found.ranks(split, "image", "audio")
    # Picture 1's own sound is first; picture 0 has sound 1 first, which is its own too; sound 1 finds picture 0.
    assert (there.tolist(), back.tolist()) == ([1, 1, 1], [1, 1, 1])
    wrong = replace(split, embeddings={"image": vectors["image"], "audio": audio[[2, 2, 1, 0]]})
    there, back = pairs(wrong, "image", "audio").ranks(wrong, "image", "audio")
    # Each is like another's; all else is a tie, and counts against, but for what is right too.
    assert (there.tolist(), back.tolist()) == ([2, 3, 3], [2, 3, 3])
    assert Retrieval()(wrong, no_text)["retrieval/image->audio/chance"] == pytest.approx((2 + 1 + 1) / 3 / 3)


@pytest.mark.parametrize("same", [None, "kind"])
def test_any_repetition_equals_brute_force(same):
    rng = np.random.default_rng(5)
    n = 60
    items = {"image": rng.integers(0, 25, n), "audio": rng.integers(0, 30, n)}
    vectors = {m: unit(rng, 40, 5)[items.get(m, np.arange(n) % 40)] for m in MODALITIES}
    valid = {m: rng.random(n) < 0.8 for m in MODALITIES}
    kinds = [None if i % 9 == 0 else int(k) for i, k in enumerate(rng.integers(0, 12, n))]
    split = Embedded(vectors, valid, {"kind": kinds}, contents=contents(items))
    for a, b in permutations(MODALITIES, 2):
        sides = []
        for m in (a, b):
            mine: dict[int, set] = {}
            for row in range(n):
                item = int(items[m][row]) if m in items else row
                if any(valid[m][r] for r in range(n) if (items[m][r] if m in items else r) == item):
                    value = row if same is None or kinds[row] is None else ("kind", kinds[row])
                    mine.setdefault(item, set()).add(value)
            sides.append(mine)
        vector = {m: {(int(items[m][r]) if m in items else r): vectors[m][r] for r in range(n)} for m in (a, b)}
        ranked = []
        for query, values in sides[0].items():
            scores = {c: float(vector[a][query] @ vector[b][c]) for c in sides[1]}
            right = [c for c in scores if values & sides[1][c]]
            if right:
                best = max(scores[c] for c in right)
                ranked.append(1 + sum(scores[c] > best - 1e-6 for c in scores if c not in right))
        metrics = Retrieval(same=same)(split, no_text)
        assert metrics[f"retrieval/{a}->{b}/queries"] == len(ranked)
        assert metrics[f"retrieval/{a}->{b}/R@5"] == pytest.approx(np.mean(np.array(ranked) <= 5))
        assert metrics[f"retrieval/{a}->{b}/median_rank"] == np.median(ranked)


def test_a_picture_named_in_the_first_row_of_an_id_is_that_of_all():
    split = a_row_a_caption(4)
    first = np.arange(20) % 5 == 0
    keys = [key if there else None for key, there in zip(split.contents["image"], first, strict=True)]
    valid = {"image": first, "text": split.valid["text"]}
    once = replace(split, valid=valid, contents={"image": keys})
    assert Retrieval()(once, no_text) == Retrieval()(split, no_text)


def test_rows_without_a_value_are_right_for_themselves_alone():
    split = embedded(20, columns={"kind": [None] * 20})
    assert Retrieval(same="kind")(split, no_text) == Retrieval()(split, no_text)


def test_a_model_of_nan_finds_nothing_among_few_and_is_told():
    split = embedded(4)
    split.embeddings["image"][:] = np.nan
    found = Retrieval()(split, no_text)
    assert found["retrieval/image->text/R@10"] == 0  # of four captions each is among the first ten, for any other model
    assert found["retrieval/image->text/not_finite"] == found["retrieval/image->text/queries"] == 4
    assert "retrieval/text->audio/not_finite" not in found
    assert found["retrieval/text->audio/R@10"] == 1
