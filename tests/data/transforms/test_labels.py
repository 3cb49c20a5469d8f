"""Labels as entries of a batch, one value at a time and through the pipeline."""

import csv
import itertools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture, batch_spec, batches, prepare
from mmjax.data.sources.folder import Folder
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms import labels as labels_module
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.labels import Label, Labels, SoftAnswers
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from tests.data.conftest import kind_of


def read(transform: Transform, value: Any) -> Any:
    return transform(value, None)


ANIMALS = ("cat", "dog", "tree frog")


@pytest.mark.parametrize("value", ["dog", 1, 1.0, "1", np.int64(1), np.array(1), np.float32(1), np.str_("dog")])
def test_a_label_is_a_name_or_a_number(value):
    found = read(Label(ANIMALS), value)
    assert (found.dtype, found.shape, found) == (np.int32, (), 1)


@pytest.mark.parametrize("value", [None, float("nan"), np.float64("nan"), "", " ", -1, -1.0, "-1"])
def test_a_missing_label_is_not_valid_and_not_bad(value):
    assert read(Label(ANIMALS), value) is None
    assert read(Label(count=3), value) is None
    assert read(Labels(ANIMALS), value) is None
    assert read(Labels(ANIMALS), [value, None]) is None


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("treefrog", "unfit", r"'treefrog' is none of the 3 classes; did you mean tree frog\?"),
        ("Dog", "unfit", r"'Dog' is none of the 3 classes; did you mean dog\?"),
        (" dog", "unfit", "none of the 3"),
        (3, "unfit", "3, and the 3 classes have the numbers 0 to 2"),
        ("3", "unfit", "3, and the 3 classes"),
        (-2, "unfit", "-2, and the 3 classes"),
        (1.5, "unfit", "1.5 is none"),
        (float("inf"), "not_finite", "inf"),
        (True, "unfit", "True is none"),
        (["dog"], "unfit", r"\['dog'\] is none"),
        (b"dog", "unfit", "b'dog' is none"),
        (np.array([1, 2]), "unfit", "none of the 3"),
    ],
)
def test_what_is_no_class_is_bad_and_never_another_class(value, kind, said):
    with pytest.raises(BadExample, match=said):
        read(Label(ANIMALS), value)
    assert kind_of(Label(ANIMALS), value) == kind


def test_numbers_without_names_and_names_of_truth():
    ten = Label(count=10)
    assert [int(read(ten, value)) for value in (0, "9", 4.0)] == [0, 9, 4]
    for value in (10, "10", "cat", True):
        assert kind_of(ten, value) == "unfit"
    assert [int(read(Label(("True", "False")), value)) for value in (True, np.bool_(False), "True")] == [0, 1, 0]


def test_a_number_may_not_be_taken_for_another_class_where_names_are_numerals():
    """VQA's answers hold "2", which isn't the answer number 2."""
    answers = Label(("yes", "2", "1", "3"))
    assert [int(read(answers, value)) for value in ("2", "1", "3")] == [1, 2, 3]
    assert kind_of(answers, "0") == "unfit"  # an answer that isn't among them
    assert int(read(answers, 3)) == 3  # both readings agree
    for value in (2, 1.0, 0, 7):
        with pytest.raises(UserError, match=f"Label: the label is the number {int(value)}, .* numerals"):
            read(answers, value)
    signs = Label(("-1", "0", "1"))
    assert [int(read(signs, value)) for value in ("-1", "0", "1")] == [0, 1, 2]
    with pytest.raises(UserError, match="the number -1"):
        read(signs, -1)


def test_the_nearest_class_is_looked_up_for_the_first_unknown_labels_alone(monkeypatch):
    looked = []
    monkeypatch.setattr(labels_module, "nearest", lambda name, known: looked.append(name) or "")
    label = Label(ANIMALS)
    for place in range(20):
        assert kind_of(label, f"unknown {place}") == "unfit"
    assert looked == [f"unknown {place}" for place in range(5)]


def by_hand(names, classes):
    return [1.0 if any(name == each for each in names) else 0.0 for name in classes]


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_are_ones_at_their_classes(seed):
    rng = np.random.default_rng(seed)
    classes = tuple(f"class {i}" for i in range(7))
    names = rng.choice(classes, int(rng.integers(0, 9))).tolist()
    found = read(Labels(classes), names)
    assert (found.dtype, found.shape) == (np.float32, (7,))
    assert found.tolist() == by_hand(names, classes)
    if names:
        for value in (tuple(names), np.array(names), " , ".join(names) + ",", [classes.index(n) for n in names]):
            assert read(Labels(classes), value).tolist() == found.tolist()
        assert read(Labels(classes, separator=" | "), " | ".join(names)).tolist() == found.tolist()


def test_an_empty_list_has_no_class_and_an_unknown_one_makes_the_example_bad():
    several = Labels(ANIMALS)
    assert read(several, []).tolist() == [0, 0, 0]
    assert read(several, ["cat", None]).tolist() == [1, 0, 0]
    assert read(several, 2).tolist() == [0, 0, 1]
    assert read(Labels(count=4), "3,1").tolist() == [0, 1, 0, 1]
    for value in (["cat", "cow"], "cat,cow", ["cat", ["dog"]], {"cat": 1}, np.zeros((2, 2))):
        assert kind_of(several, value) == "unfit"
    assert read(Labels(("a,b", "c"), separator=None), "a,b").tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_soft_answers_are_the_share_of_points_that_annotators_give(seed):
    rng = np.random.default_rng(seed)
    answers = rng.choice(["yes", "no", "2", "a cat", "elsewhere"], 10, p=[0.4, 0.2, 0.2, 0.1, 0.1]).tolist()
    classes = ("no", "a cat", "yes", "2", "never")
    found = read(SoftAnswers(classes), answers)
    assert (found.dtype, found.shape) == (np.float32, (5,))
    np.testing.assert_allclose(found, [min(1, 0.3 * answers.count(name)) for name in classes], atol=1e-7)
    assert read(SoftAnswers(classes), "|".join(answers)).tolist() == found.tolist()


def test_the_points_by_number_of_annotators_are_those_of_the_metric():
    given = [["yes"] * n + ["no"] * (10 - n) for n in range(11)]
    found = [float(read(SoftAnswers(("yes",), outside="keep"), answers)[0]) for answers in given]
    np.testing.assert_allclose(found, [0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1], atol=1e-7)


def test_answers_outside_the_list_count_for_none():
    answers = SoftAnswers(("yes", "no"))
    assert read(answers, ["Yes", "perhaps"]) is None  # as it is written
    assert read(replace(answers, outside="keep"), ["Yes", "perhaps"]).tolist() == [0, 0]
    for value in (None, [], [None, ""], "", float("nan")):
        assert read(answers, value) is None
        assert read(replace(answers, outside="keep"), value) is None
    assert kind_of(answers, ["yes", 2]) == "undecodable"
    assert read(SoftAnswers(("a|b",), separator=None), "a|b") == [np.float32(0.3)]


@pytest.mark.parametrize(
    ("make", "fields", "said"),
    [
        (Label, {}, "there are no classes: name them"),
        (Label, {"classes": ("a",), "count": 3}, "say one of them"),
        (Label, {"classes": "yes,no"}, r"Label\(classes='yes,no'\): the classes are a tuple of names"),
        (Label, {"classes": {"a": 1}}, "tuple of names"),
        (Label, {"classes": ("a", "b", "a")}, "'a' stand there more than once"),
        (Label, {"classes": ("a", 1)}, "1 is no class's name"),
        (Label, {"classes": ("a", " ")}, "' ' is no class's name"),
        (Label, {"count": 0}, "from 1 on"),
        (Label, {"count": True}, "from 1 on"),
        (Label, {"count": 2.5}, "from 1 on"),
        (Labels, {"classes": "ab"}, r"Labels\(classes='ab'\)"),
        (Labels, {"classes": ("a", "b,c")}, "'b,c' holds it: name another, or None"),
        (Labels, {"classes": ("a", "b"), "separator": ""}, r"separator=''\): name the text"),
        (SoftAnswers, {"classes": ()}, r"SoftAnswers\(classes=\(\)\): there are no classes"),
        (SoftAnswers, {"classes": "yes"}, r"SoftAnswers\(classes='yes'\)"),
        (SoftAnswers, {"classes": ("yes|no",)}, "'yes|no' holds it"),
        (SoftAnswers, {"classes": ("yes",), "outside": "drop"}, "outside='drop'.*'missing' or 'keep'"),
    ],
)
def test_lists_of_classes_that_cannot_be_are_errors(make, fields, said):
    with pytest.raises(UserError, match=said):
        make(**fields)


def test_labels_go_to_other_processes_and_are_equal_by_their_fields():
    for transform in (Label(ANIMALS), Labels(count=3), SoftAnswers(ANIMALS)):
        again = pickle.loads(pickle.dumps(transform))
        assert again == transform
        assert hash(again) == hash(transform)
    assert read(pickle.loads(pickle.dumps(Label(ANIMALS))), "cat") == 0
    assert Label(ANIMALS) != Label((*ANIMALS, "cow"))


CHAINS = {
    "text": (Tokenize(SentencePiece(40), 24),),
    "answer": (Label(("no", "yes")),),
    "kinds": (Labels(("red", "green", "blue"), separator=";"),),
    "ten": (SoftAnswers(("left", "right")),),
}


def row(i):
    """Row i of the table, and its answer, kinds and targets: None where they are missing or bad."""
    answer = ["yes", "no", "", "1", "maybe"][i % 5]
    kinds = ["red;blue", "", "green"][i % 3]
    ten = ["left|left|right", "up", "right"][i % 3]
    targets = ([0.6, 0.3], None, [0.0, 0.3])[i % 3]
    ones = ([1, 0, 1], None, [0, 1, 0])[i % 3]
    return (f"which way is {i}", answer, kinds, ten), ([1, 0, None, 1, None][i % 5], ones, targets)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "text", "answer", "kinds", "ten", "split"])
        for i in range(30):
            table.writerow([i, *row(i)[0], "test" if i >= 25 else "train"])
    return prepare(Mixture({"own": 1.0}, CHAINS, {"own": Folder(str(folder / "t.csv"))}), data_dir=str(folder))


def taken(prepared, count, **where):
    stream = batches(prepared, batch_size=6, seed=1, **where)
    found = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def assert_is_row(batch, place, i):
    for name, expected in zip(("answer", "kinds", "ten"), row(i)[1], strict=True):
        assert batch[f"{name}_valid"][place] == (expected is not None)
        np.testing.assert_allclose(batch[name][place], 0 if expected is None else expected, atol=1e-7)
    assert (batch["answer_bad"][place] != 0) == (row(i)[0][1] == "maybe")
    assert batch["kinds_bad"][place] == batch["ten_bad"][place] == 0


def test_a_batch_has_the_labels_of_its_texts_in_training(prepared):
    whole = taken(prepared, 10)
    spec = {name: (array.shape, array.dtype) for name, array in batch_spec(prepared.mixture, 6).items()}
    assert spec["answer"] == ((6,), np.int32)
    assert spec["kinds"] == ((6, 3), np.float32)
    assert spec["ten"] == ((6, 2), np.float32)
    tokenizer, seen = prepared.chains.tokenizers["text"], set()
    for batch in whole:
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == spec
        for place in range(6):
            i = int(tokenizer.decode(batch["text"][place]).split()[-1])
            assert_is_row(batch, place, i)
            seen.add(i)
    assert seen == set(range(25))


def test_the_place_in_the_stream_alone_decides(prepared, monkeypatch):
    whole = taken(prepared, 8)
    for batch, same in zip(whole[5:], taken(prepared, 3, step=5), strict=True):
        assert_same(batch, same)
    halves = [taken(prepared, 8, host=(host, 2)) for host in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        joined = {name: np.concatenate([part[name] for part in parts]) for name in batch}
        assert_same(batch, joined)
    monkeypatch.setattr(prepared, "mixture", replace(prepared.mixture, cache=True))
    for batch, same in zip(whole, taken(prepared, 8), strict=True):
        assert_same(batch, same)
    monkeypatch.setattr(prepared, "mixture", replace(prepared.mixture, cache=False, workers=1))
    for batch, same in zip(whole, taken(prepared, 8), strict=True):
        assert_same(batch, same)


def test_evaluation_keeps_labels_in_order_and_gives_the_column_when_asked(prepared):
    found = list(evaluation_batches(prepared, "test", 3, columns=("id", "answer", "kinds")))
    rows = [(batch, place) for batch, columns in found for place in range(len(columns["id"]))]
    assert len(rows) == 5
    for i, (batch, place) in enumerate(rows, 25):
        assert_is_row(batch, place, i)
    last = found[-1][0]
    assert not any(last[f"{name}_valid"][2] or last[name][2].any() for name in ("answer", "kinds", "ten"))
    assert [value for _, columns in found for value in columns["answer"]] == ["yes", "no", None, "1", "maybe"]
