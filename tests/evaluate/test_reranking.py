"""`mmjax evaluate --rerank`: the towers' candidates in the order of the model's own matching, and what that gains."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.evaluate import Accuracy, Reranked, Retrieval
from mmjax.evaluate.reranking import with_reranked
from mmjax.inference.model import load
from mmjax.objectives import Contrastive, Matching
from tests.trained import Trained

MATCH = {"pair": Contrastive(("image", "text")), "match": Matching("reader")}


def test_each_judged_split_is_reranked_by_each_matching() -> None:
    retrieval, test = Retrieval(same="text", at=(1, 2)), Retrieval(split="test")
    assert with_reranked([retrieval, test, Accuracy("x")], MATCH, 7) == [
        *(retrieval, test, Accuracy("x")),
        Reranked("match", 7, "validation", "text", (1, 2)),
        Reranked("match", 7, "test"),
    ]
    own = Reranked("match", 9, same="text", name="again")
    assert with_reranked([own], MATCH, 7) == [Reranked("match", 7, same="text", name="again")]
    two = MATCH | {"other": Matching("reader")}
    assert [each.name for each in with_reranked([Accuracy("x")], two, 7)[1:]] == ["reranked_match", "reranked_other"]


def test_without_a_matching_or_a_candidate_it_is_refused() -> None:
    objectives = {"pair": MATCH["pair"]}
    with pytest.raises(UserError, match=r"rerank=7 .* trained without one; its objectives are pair \(Contrastive\)"):
        with_reranked([Retrieval()], objectives, 7)
    with pytest.raises(UserError, match="rerank=0 must be at least 1"):
        with_reranked([Retrieval()], MATCH, 0)


def test_the_command_tells_what_matching_gains(
    reading_run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By all pairs asked one by one: the first five of each query by the towers, in the order of `Model.match`."""
    found, page = tmp_path / "found.json", tmp_path / "page.html"
    names = ["--evaluators", "retrieval", "--rerank", "5"]
    assert main(["evaluate", str(reading_run.workdir), *names, "--json", str(found), "--report", str(page)]) == 0
    told, reading = json.loads(found.read_text()), load(reading_run.workdir)
    line, said = told["validation"], capsys.readouterr().out
    with Path(reading_run.table).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    given: dict[str, list[Any]] = {
        "image": [str(Path(reading_run.table).parent / row["image"]) for row in rows],
        "text": [row["text"] for row in rows],
    }
    count = len(rows)
    scores = reading.similarity(**given)
    every = reading.match(
        image=[picture for picture in given["image"] for _ in range(count)], text=given["text"] * count
    ).reshape(count, count)
    for direction, towers, second in (("image->text", scores, every), ("text->image", scores.T, every.T)):
        hits = {1: 0, 5: 0, 10: 0}
        for query in range(count):
            order = np.argsort(-towers[query], kind="stable")
            order = [*order[:5][np.argsort(-second[query, order[:5]], kind="stable")], *order[5:]]
            for k in hits:
                hits[k] += query in order[:k]
        for k, right in hits.items():
            reranked = line[f"reranked/{direction}/R@{k}"]
            np.testing.assert_allclose(reranked, right / count, rtol=1e-6)
            gain = reranked - line[f"retrieval/{direction}/R@{k}"]
            np.testing.assert_allclose(line[f"reranked/{direction}/gain_R@{k}"], gain, atol=1e-7)
    assert "reranked: the towers' best 5 candidates of each query, in the order of 'match'" in said
    assert "gain_R@1" in said.replace("\n", "")
    assert f"{line['reranked/image->text/gain_R@1']:+.3f}" in said
    assert "gain R@1" in page.read_text()


def test_a_run_without_matching_says_so(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained.workdir), "--rerank", "5"]) == 2
    assert "trained without one; its objectives are image_text (Contrastive)" in capsys.readouterr().err
    assert main(["evaluate", str(trained.workdir), "--watch", "--rerank", "5"]) == 2
    assert "--watch judges every checkpoint: leave out --rerank" in capsys.readouterr().err
