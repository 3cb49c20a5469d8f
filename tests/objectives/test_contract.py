"""Views and their keys; and what an objective is told of the step."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.objectives import Classify, TagTokens
from mmjax.objectives.contract import Context, Fused, Together, View, fusions, named_key, usable
from mmjax.objectives.masking import Keep
from tests.objectives.rounds import Fusing, Matching

KEY = jax.random.key(3)


def same(a: Any, b: Any) -> bool:
    return np.array_equal(jax.random.key_data(a), jax.random.key_data(b))


def test_the_tower_of_the_input_s_name_is_the_one_that_needs_no_name() -> None:
    assert View("image", tower="image") == View("image")
    assert View("image", tower="image").by == View("image").by == "image"
    assert View("frame", tower="image").by == "image"
    assert len({View("a"), View("a", teacher=True), View("a", tower="b"), View("a", Keep(0.5))}) == 4


def test_keys_are_those_of_every_version_before() -> None:
    """By the text that a view had when its input was called its modality."""
    keep = View("image", Keep(0.25)), View("text", Keep(0.25))
    texts = [f"View(modality={name!r}, masking=Keep(share=0.25))" for name in ("image", "text")]
    assert same(keep[0].key(KEY), named_key(KEY, texts[0]))
    assert same(keep[0].dropout_key(KEY), named_key(KEY, texts[0]))
    assert same(View("image").key(KEY), named_key(KEY, "View(modality='image', masking=None)"))
    assert same(Together(keep).dropout_key(KEY), named_key(KEY, f"Together(parts=({', '.join(texts)}))"))
    assert same(Together(keep[:1]).dropout_key(KEY), named_key(KEY, f"Together(parts=({texts[0]},))"))


def test_what_is_hidden_from_a_teacher_is_hidden_from_its_student_and_other_towers_drop_out_by_themselves() -> None:
    student, teacher = View("image", Keep(0.5)), View("image", Keep(0.5), teacher=True)
    assert same(student.key(KEY), teacher.key(KEY))
    other = View("image", Keep(0.5), tower="large")
    assert same(student.key(KEY), other.key(KEY))
    assert not same(student.dropout_key(KEY), other.dropout_key(KEY))
    assert not same(Fused("a", (student,)).dropout_key(KEY), Fused("b", (student,)).dropout_key(KEY))


def test_keys_of_examples_and_pairs_are_folded_with_every_row() -> None:
    rows = np.array([4, 9], np.uint32)
    own = named_key(KEY, "per_example x")
    keys = Context(True, KEY, "per_example x", rows).keys  # pyright: ignore
    assert all(same(key, jax.random.fold_in(own, row)) for key, row in zip(keys, rows, strict=True))
    pairs = np.array([[4, 9], [9, 4]], np.uint32)
    keys = Context(True, KEY, "per_example x", pairs).keys  # pyright: ignore
    for key, (a, b) in zip(keys, pairs, strict=True):
        assert same(key, jax.random.fold_in(jax.random.fold_in(own, a), b))
    with pytest.raises(UserError, match=r"draws at random and was given no key: pass rngs=\{'mask': key\}"):
        Context(True, None, "x", rows).keys  # noqa: B018  # pyright: ignore
    with pytest.raises(UserError, match="there is no fusion 'bath'; the fusions are both; did you mean both"):
        Context(fusions={"both": (None, False)}).fuse("bath", {})


def test_the_fusions_of_an_objective_are_those_of_its_views_and_of_its_second_round() -> None:
    assert fusions(Fusing()) == ("both",)
    assert fusions(Matching(fusion="own")) == ("own",)


def test_an_example_that_lacks_a_part_can_be_encoded_together_and_not_fused() -> None:
    batch: Any = {"image_valid": np.array([1, 1, 0, 0], bool), "text_valid": np.array([1, 0, 1, 0], bool)}

    class Reads:
        def __init__(self, view: Any):
            self.view = view

        def views(self) -> Any:
            return (self.view,)

    both = View("image"), View("text")
    assert usable(Reads(Together(both)), batch).tolist() == [True, True, True, False]
    assert usable(Reads(Fused("f", both)), batch).tolist() == [True, False, False, False]


def test_an_example_without_its_label_cannot_be_used() -> None:
    """An objective that counts by itself is asked; another by its views alone."""
    batch: Any = {"image_valid": np.array([1, 1, 0, 0], bool), "text_valid": np.array([1, 0, 1, 0], bool)}
    batch |= {"kind_valid": np.array([1, 0, 1, 1], bool), "text_tags": np.array([[-1, -1], [-1, 2], [3, 0], [1, 1]])}
    fused = Classify("kind", 3, ("image", "text"), "both")
    assert usable(fused, batch).tolist() == [True, False, True, False]
    assert usable(Classify("kind", 3, ("image",)), batch).tolist() == [True, False, False, False]
    assert usable(TagTokens(4, fusion="both", beside=("image",)), batch).tolist() == [False, False, True, False]
