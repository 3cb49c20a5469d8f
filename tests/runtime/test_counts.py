"""How much was judged: which names say so, and in what words."""

from mmjax.evaluate.tables import tables
from mmjax.runtime import counts


def test_a_label_may_be_called_as_a_count_is():
    names = ["zeroshot/classes/top1", "zeroshot/classes/chance", "knn/examples/top1/fold=a", "losses/examples"]
    assert [counts.is_count(name) for name in names] == [False, True, False, True]
    (table,) = tables({"test": {"zeroshot/classes/top1": 0.5, "zeroshot/classes/chance": 0.25}}, None)
    assert [list(column.cells) for column in table.columns][1:] == [["0.500"]]


def test_things_are_whole_and_chances_are_not():
    names = ["a/queries", "a/left_out", "a/chance", "a/chance_R@5", "a/top1"]
    assert [counts.is_whole(name) for name in names] == [True, True, False, False, False]


def test_every_score_has_its_chance():
    of = "retrieval/image->text"
    metrics = {f"{of}/R@10": 1.0, f"{of}/queries": 10.0, f"{of}/candidates": 10.0, f"{of}/chance": 0.1,
               f"{of}/chance_R@10": 1.0, f"{of}/chance_median_rank": 5.5}  # fmt: skip
    said = "10 pictures, among 10 captions; at random R@1 0.100, R@10 1.000, median_rank 5.5"
    assert counts.told(metrics) == {of: f"{of}: {said}"}


def test_each_table_says_on_how_many_also_where_its_rows_have_no_counts_of_their_own():
    judged = {"probe/kind/examples": 40.0, "probe/kind/classes": 4.0, "probe/kind/chance": 0.25}
    shots = {"probe/kind/5shot/top1": 0.5, "probe/kind/5shot/top1_std": 0.1}
    said = "probe/kind: 40 examples in 4 classes; at random top1 0.250"
    alone = tables({"test": {**shots, **judged}}, None)
    assert [str(table.caption) for table in alone] == [said]  # the chance of what was asked for, of no other score
    whole = {"probe/kind/top1": 0.75, "probe/kind/top1/fold=a": 0.5, "probe/kind/top1/fold=b": 1.0}
    beside = tables({"test": {**whole, **shots, **judged}}, None)
    assert [str(table.caption) for table in beside] == [said] * 3
    other = tables({"test": {**whole, "zeroshot/sort/left_out": 3.0}}, None)
    assert [table.caption and str(table.caption) for table in other] == [
        None,
        "zeroshot/sort: 3 without a label are left out",
    ]
