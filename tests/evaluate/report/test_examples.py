"""Heat maps, retrievals and the map as they stand on the page."""

from dataclasses import replace

import numpy as np
import pytest

from mmjax.evaluate.report.examples import embedding_map, label_column, principal, retrievals, similarities
from mmjax.evaluate.report.findings import Findings
from mmjax.evaluate.report.media import Media
from tests.evaluate.report.made import made


def media(found: Findings) -> Media:
    return Media(found.raw, found.embedded, "0", [10**7])


def test_principal_components_equal_those_of_the_covariance():
    values = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    places, shares = principal(values)
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(values.T))
    expected = (values - values.mean(axis=0)) @ eigenvectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(shares, eigenvalues[[-1, -2]] / eigenvalues.sum())
    np.testing.assert_allclose(principal(-values)[0], -places, atol=1e-9)  # the sign of an axis doesn't drift


def test_the_label_is_what_was_classified_by_else_a_column_of_few_values():
    found = made()
    assert label_column(found) == "kind"
    assert label_column(replace(found, classified=[])) == "kind"
    many = made(kind=[f"kind {i}" for i in range(20)])
    assert label_column(replace(many, classified=[])) is None
    several = made().embedded.columns | {"kind": [[i % 2 > 0, True] for i in range(20)]}
    lists = replace(found, embedded=replace(found.embedded, columns=several))
    assert label_column(replace(lists, classified=[])) is None
    assert embedding_map(replace(lists, classified=[]), media(lists)) is not None


def test_a_heat_map_for_each_pair_of_modalities():
    found = made()
    assert len(similarities(found, media(found))) == 3
    two = made(modalities=("text", "audio"))
    (only,) = similarities(two, media(two))
    assert "caption × sound" in only
    alone = made(modalities=("image",))
    assert similarities(alone, media(alone)) == []


def test_the_right_answer_is_shown_though_it_is_far_down():
    found = made(60, ("image", "text"))
    vectors = dict(found.embedded.embeddings)
    vectors["image"] = np.roll(vectors["image"], 1, axis=0)  # nothing is where it belongs
    found = replace(found, embedded=replace(found.embedded, embeddings=vectors))
    shown = retrievals(found, media(found))
    assert len(shown) == 2
    assert "right answer, " in shown[0]
    assert shown[0].count("<h4>") == 3
    assert shown[0].startswith('<details class="direction" open>')
    assert shown[1].startswith('<details class="direction">')


@pytest.mark.parametrize("modalities", [("image", "text", "audio"), ("text", "audio"), ("image",)])
def test_the_map_has_a_point_for_each_embedding(modalities):
    found = made(modalities=modalities)
    drawn = embedding_map(found, media(found))
    assert drawn is not None
    count = sum(int(found.embedded.valid[m].sum()) for m in modalities)
    assert drawn.count("data-tip=") == 2 * count  # as they lie, and centred
    assert ("<img" in drawn) == ("image" in modalities)
    assert "kind: kind 1" in drawn


def test_a_map_of_nothing():
    assert embedding_map(made(1, ("image",)), media(made(1, ("image",)))) is None
