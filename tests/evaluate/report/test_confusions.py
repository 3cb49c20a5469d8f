"""Confusion matrices: their counts, the largest confusions, and the classes that are shown of many."""

import re

import numpy as np

from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.report.confusions import MOST, confusion


def classified(truth, found, classes: int) -> Classified:
    names = tuple(f"<class {i}>" for i in range(classes))
    return Classified("zeroshot/kind", "kind", names, np.arange(len(truth)), np.array(truth), np.array(found))


def cells(markup: str) -> list[list[str]]:
    body = markup.partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in body.split("</tr>") if "<td" in row]


def test_a_small_matrix_is_whole():
    made = confusion(classified([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], 3))
    assert cells(made) == [["1", "2", ""], ["1", "1", ""], ["", "", "1"]]
    assert "3 of 6 right" in made
    listed = made.partition("largest confusions")[2]
    assert re.findall(r"<td>([^<]*)</td>", listed) == ["&lt;class 1&gt;", "2", "67%", "&lt;class 0&gt;", "1", "50%"]


def test_of_a_hundred_classes_the_most_confused_are_shown():
    truth = np.repeat(np.arange(100), 10)
    found = truth.copy()
    found[truth == 70] = 30  # the largest confusion
    found[np.flatnonzero(truth == 5)[:3]] = 99
    made = confusion(classified(truth, found, 100))
    rows = cells(made)
    assert len(rows) == MOST
    assert all(len(row) == MOST + 1 for row in rows)  # and the others
    for name in (5, 30, 70, 99):
        assert f'<th scope="row">&lt;class {name}&gt; (10)' in made
    assert re.findall(r"<td>([^<]*)</td>", made.partition("largest confusions")[2])[:3] == [
        "&lt;class 30&gt;",
        "10",
        "100%",
    ]


def test_examples_that_were_taken_for_a_class_not_shown_are_counted():
    truth = np.repeat(np.arange(60), 2)
    found = (truth + 1) % 60  # all of them wrong
    rows = cells(confusion(classified(truth, found, 60)))
    assert all(sum(int(cell or 0) for cell in row) == 2 for row in rows)
    assert rows[MOST - 1][-1] == "2"  # the last one shown was taken for one that isn't


def test_nothing_was_confused():
    assert "Nothing was confused" in confusion(classified([0, 1], [0, 1], 2))
