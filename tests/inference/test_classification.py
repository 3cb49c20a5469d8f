"""What a classification shows of itself."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.classification import Classification, prompts

LABELS = ("cat", "dog", "cow")


def test_the_likeliest_come_first():
    logits = np.log(np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]], np.float32))
    several = Classification(LABELS, np.exp(logits), logits)
    assert several.best == ["dog", "cat"]
    assert [label for label, _ in several[1].top(2)] == ["cat", "cow"]
    assert several.top(1) == [[("dog", pytest.approx(0.7))], [("cat", pytest.approx(0.5))]]
    assert len(several) == 2
    assert repr(several) == "   0  dog 0.700, cat 0.200, cow 0.100\n   1  cat 0.500, cow 0.300, dog 0.200"
    assert repr(several[0]) == " 0.700  dog\n 0.200  cat\n 0.100  cow"
    assert several[0].best == "dog"
    with pytest.raises(TypeError, match="of one input alone"):
        several[0][0]
    none = Classification(LABELS, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert (none.best, none.top(), len(none)) == ([], [], 0)


def test_no_label_is_the_likeliest_of_nan():
    fine = np.zeros((3, 3), np.float32)
    for where, said in (((1,), "input 1"), ((slice(None), 1), "the label 'dog'"), ((), "every input")):
        logits = fine.copy()
        logits[where] = np.nan
        with pytest.raises(UserError, match=rf"the scores of {said} aren't finite \(NaN\)"):
            Classification(LABELS, fine, logits)
    with pytest.raises(UserError, match="every input"):
        Classification(LABELS, fine[0], np.full(3, np.nan))


def test_labels_may_be_spelled_out_and_templates_named():
    names, words, templates = prompts({"n02": "crane bird", "n03": "crane machine"}, "a photo of a {}.")
    assert names == ("n02", "n03")
    assert words == ["crane bird", "crane machine"]
    assert templates == ("a photo of a {}.",)
    assert len(prompts(["a"], "clip80")[2]) == 80
    with pytest.raises(UserError, match="3 is no string"):
        prompts(["a", 3], "{}")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="templates="):
        prompts(["a"], [])
    with pytest.raises(UserError, match=r"templates: 'a {c}' has {c}, which is no place for the label: write {}"):
        prompts(["a"], ["{}", "a {c}"])
    with pytest.raises(UserError, match=r"templates: 'a photo of a' has no {} where"):
        prompts(["a"], "a photo of a")
