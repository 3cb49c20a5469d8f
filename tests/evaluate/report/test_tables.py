"""Tables and curves of metrics."""

import json
import re
from html import unescape
from importlib import resources

from mmjax.evaluate.report.tables import curves, drawn, meanings, number_tables


def test_no_direction_is_marked_as_better_than_another():
    """Only runs compare, and a page is of one."""
    (made,) = number_tables({
        "retrieval/image->text/R@1": 0.25, "retrieval/image->text/median_rank": 9.0,
        "retrieval/text->image/R@1": 0.5, "retrieval/text->image/median_rank": 3.0,
    })  # fmt: skip
    assert re.findall(r"<td>([\d.]+)", made) == ["0.250", "9.0", "0.500", "3.0"]
    assert "best" not in made
    assert "width:25.0%" in made
    assert 'scope="row">retrieval/image → text' in made
    assert "★" not in resources.files("mmjax.evaluate.report").joinpath("style.css").read_text(encoding="utf-8")


def test_what_is_not_finite_is_said():
    assert "not finite" in "".join(number_tables({"a/R@1": None}))


def test_each_kind_of_number_is_explained_once_with_its_direction():
    names = [f"retrieval/a->b/{score}" for score in ("R@1", "R@10", "median_rank", "chance", "chance_R@10")]
    names += ["retrieval/b->a/R@1", "probe/kind/5shot/top1", "mine/whatever", "losses/loss", "losses/pair/accuracy"]
    made = meanings(names, evaluation=True)
    assert made is not None
    said = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", unescape(made)))
    assert list(said) == ["R@1, R@10", "median rank", "5shot top1", "loss", "each objective's accuracy"]
    assert said["R@1, R@10"] == (
        "Recall at k, the share of queries with a right answer among the first k; higher is better."
    )
    assert [each.rpartition("; ")[2].partition(" ")[0] for each in said.values()] == [
        "higher", "lower", "higher", "lower", "higher",
    ]  # fmt: skip
    assert meanings(["mine/whatever"], evaluation=True) is None


def test_what_the_curves_draw_is_explained_too():
    history = [{"step": 1, "loss": 2.0, "pair/loss": 1.0, "lr": 0.1, "grad_norm": 3.0, "data_wait": 0.5}]
    assert drawn(history) == ["loss", "pair/loss", "lr"]
    said = re.findall(r"<dt>(.*?)</dt>", unescape(meanings(drawn(history), evaluation=False) or ""))
    assert said == ["loss", "each objective's loss", "lr"]


def test_kinds_of_metrics_have_tables_of_their_own():
    assert len(number_tables({"retrieval/a->b/R@1": 0.1, "zeroshot/kind/top1": 0.2, "zeroshot/kind/top5": 0.2})) == 2


def test_what_was_judged_stands_below_and_how():
    numbers = {"retrieval/image->text/R@1": 0.25, "retrieval/image->text/queries": 24.0,
               "retrieval/image->text/candidates": 120.0, "retrieval/image->text/chance": 5 / 120,
               "retrieval/image->text/chance_median_rank": 17.0}  # fmt: skip
    table, below = number_tables(numbers, ["retrieval: each <caption> counts"])
    assert "queries" not in table
    assert (
        ">retrieval/image → text: 24 pictures, among 120 captions; at random R@1 0.042, median rank 17.0</li>" in below
    )
    assert "each &lt;caption&gt; counts" in below


def points(chart: str) -> dict[str, list]:
    return {
        line["name"]: line["points"] for line in json.loads(unescape(re.findall(r'data-lines="([^"]*)"', chart)[0]))
    }


def test_curves_hold_what_was_logged():
    history = [{"step": s, "loss": 4.0 - s, "pair/loss": 3.0 - s, "lr": 0.1} for s in (1, 2)]
    history += [{"step": s, "split": "test", "retrieval/a->b/R@1": s / 10, "other": 3} for s in (1, 2)]
    history += [{"step": 2, "split": "once", "retrieval/a->b/R@1": 0.3}, {"step": 3, "loss": None}]
    loss, test, rate = curves(history)
    assert {name: [p[:2] for p in line] for name, line in points(loss).items()} == {
        "loss": [[1, 3.0], [2, 2.0]], "pair/loss": [[1, 2.0], [2, 1.0]],
    }  # fmt: skip
    assert [p[:2] for p in points(test)["retrieval/a → b R@1"]] == [[1, 0.1], [2, 0.2]]
    assert "Learning rate" in rate


def test_no_metrics_no_curves():
    assert curves([]) == []
    assert curves([{"step": 1, "split": "test", "retrieval/a->b/R@1": 0.1}]) == []
