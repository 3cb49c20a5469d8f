"""Zero-shot classification against its definition."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.runtime.counts import scores
from tests.evaluate.metrics.test_labels import precision_by_hand
from tests.evaluate.metrics.test_ranks import unit

LABELS = ("flags", "food-drink", "people_body", "places", "objects", "symbols", "animals")


def embed_text(strings):
    """A unit vector for each string, that depends on the string alone."""
    return np.concatenate([unit(np.random.default_rng(zlib.crc32(s.encode())), 1, 6) for s in strings])


def split(n: int = 50, valid: float = 1.0) -> Embedded:
    rng = np.random.default_rng(1)
    labels = [LABELS[i] for i in (rng.random(n) ** 2 * len(LABELS)).astype(int)]  # unequal classes
    return Embedded({"image": unit(rng, n, 6)}, {"image": rng.random(n) < valid}, {"group": labels})


@pytest.mark.parametrize("valid", [1.0, 0.6])
def test_metrics_equal_the_definition(valid):
    data, templates = split(valid=valid), ("{}", "a picture of {}")
    metrics = ZeroShot("group", templates=templates)(data, embed_text)
    classes = sorted(set(data.columns["group"]))
    names = []
    for label in classes:
        spoken = label.replace("-", " ").replace("_", " ")
        mean = sum(embed_text([template.format(spoken)])[0].astype(np.float64) for template in templates)
        names.append(mean / np.linalg.norm(mean))
    top1, top5, by_class = [], [], {}
    for i in np.flatnonzero(data.valid["image"]):
        order = np.argsort([-float(data.embeddings["image"][i] @ name) for name in names])
        right = classes.index(data.columns["group"][i])
        top1.append(order[0] == right)
        top5.append(right in order[:5])
        by_class.setdefault(right, []).append(order[0] == right)
    assert scores(metrics) == {
        "zeroshot/group/top1": pytest.approx(np.mean(top1)),
        "zeroshot/group/top5": pytest.approx(np.mean(top5)),
        "zeroshot/group/recall": pytest.approx(np.mean([np.mean(hits) for hits in by_class.values()])),
    }
    assert metrics["zeroshot/group/recall"] != metrics["zeroshot/group/top1"]
    judged = {name: value for name, value in metrics.items() if name not in scores(metrics)}
    assert judged == {
        "zeroshot/group/examples": data.valid["image"].sum(),
        "zeroshot/group/classes": len(classes),
        "zeroshot/group/left_out": 0,
        "zeroshot/group/chance": 1 / len(classes),
        "zeroshot/group/chance_top5": 5 / len(classes),
        "zeroshot/group/chance_recall": 1 / len(classes),
    }


def test_each_template_counts_the_same_however_long_its_embedding():
    data = split()
    scaled = lambda strings: embed_text(strings) * np.array([[9.0] if " of " in s else [1.0] for s in strings])  # noqa: E731
    zeroshot = ZeroShot("group", templates=("{}", "a picture of {}"))
    assert zeroshot(data, scaled) == pytest.approx(zeroshot(data, embed_text))


def test_labels_that_are_unknown_or_missing_do_not_count():
    data = split(20)
    expected = ZeroShot("group")(data.take(np.arange(5, 20)), embed_text)
    data.columns["group"][:5] = [None, "", math.nan, " ", None]  # whatever a cell without content was read as
    found = ZeroShot("group")(data, embed_text)
    assert scores(found) == scores(expected)
    assert (found["zeroshot/group/examples"], found["zeroshot/group/left_out"]) == (15, 5)
    assert ZeroShot("group").classified(data, embed_text)[0].rows.tolist() == list(range(5, 20))
    only = ZeroShot("group", classes=("flags", "food-drink"), name="few")(data, embed_text)
    assert only["few/group/top5"] == 1  # two classes: every counted example is among the first five
    nothing = ZeroShot("group", classes=("nothing",))(data, embed_text)
    assert nothing == {"zeroshot/group/examples": 0, "zeroshot/group/classes": 1, "zeroshot/group/left_out": 20}


def test_collapsed_text_is_not_rewarded():
    data = split()
    assert ZeroShot("group")(data, lambda strings: np.ones((len(strings), 6)))["zeroshot/group/top5"] == 0


def test_errors_name_what_there_is():
    with pytest.raises(UserError, match="embeds image"):
        ZeroShot("group", modality="audio")(split(), embed_text)
    with pytest.raises(UserError, match=r"'subgroup'.*it has: group"):
        ZeroShot("subgroup")(split(), embed_text)


def test_numbers_are_places_among_the_classes():
    data = split()
    number = replace(data, columns={"group": [sorted(LABELS).index(label) for label in data.columns["group"]]})
    expected = ZeroShot("group")(data, embed_text)
    assert ZeroShot("group", classes=tuple(sorted(LABELS)))(number, embed_text) == expected
    assert ZeroShot("group")(replace(number, class_names={"group": tuple(sorted(LABELS))}), embed_text) == expected


def test_lists_by_name_are_asked_for_as_they_stand():
    asked = []
    data = Embedded(
        {"image": unit(np.random.default_rng(0), 3, 6)}, {"image": np.ones(3, bool)}, {"label": [0, 1, 608]}
    )

    def heard(strings):
        asked.extend(strings)
        return embed_text(strings)

    ZeroShot("label", classes="imagenet", templates="clip7")(data, heard)
    assert len(asked) == 7000
    assert asked[0] == "itap of a tench."
    assert "itap of a T-shirt." in asked
    with pytest.raises(UserError, match="did you mean imagenet"):
        ZeroShot("label", classes="imagenett")(data, embed_text)


def test_of_two_classes_of_one_name_the_first_comes_first():
    """As an argmax has it, which published numbers are made with."""
    vectors = np.stack([embed_text(["missile"])[0]] * 2)
    data = Embedded({"image": vectors}, {"image": np.ones(2, bool)}, {"label": [1, 2]})
    found = ZeroShot("label", classes=("tench", "missile", "missile"))(data, embed_text)
    assert found["zeroshot/label/top1"] == 0.5
    assert found["zeroshot/label/top5"] == 1


def test_only_classes_that_are_present():
    data = split()
    data.columns["group"] = ["flags", "places"] * 25
    every, present = (ZeroShot("group", classes=LABELS, present=p)(data, embed_text) for p in (False, True))
    assert present == ZeroShot("group", classes=("flags", "places"))(data, embed_text)
    assert present["zeroshot/group/top1"] > every["zeroshot/group/top1"]


def test_lists_of_labels_give_average_precision():
    data = split(40, valid=0.8)
    lists = [
        None if i == 3 else [label, "flags"] if i % 3 else [label] for i, label in enumerate(data.columns["group"])
    ]
    found = ZeroShot("group")(replace(data, columns={"group": lists}), embed_text)
    rows = [i for i in range(40) if data.valid["image"][i] and lists[i] is not None]
    precisions = []
    for label in sorted({label for row in lists if row for label in row}):
        prompt = embed_text([label.replace("-", " ").replace("_", " ")])[0]
        cosines = [float(data.embeddings["image"][i].astype(np.float64) @ prompt) for i in rows]
        right = [label in (lists[i] or ()) for i in rows]
        if any(right):
            precisions.append(precision_by_hand(cosines, right))
    assert scores(found) == {"zeroshot/group/mAP": pytest.approx(np.mean(precisions))}


def test_each_fold_is_judged_among_all_classes():
    data = split(60)
    data.columns["fold"] = [i % 3 for i in range(60)]
    found = ZeroShot("group", folds="fold")(data, embed_text)
    alone = ZeroShot("group", classes=tuple(sorted(set(data.columns["group"]))))(
        data.take(np.arange(1, 60, 3)), embed_text
    )
    assert found["zeroshot/group/top1/fold=1"] == alone["zeroshot/group/top1"]
    assert found["zeroshot/group/top1"] == pytest.approx(
        np.mean([found[f"zeroshot/group/top1/fold={f}"] for f in range(3)])
    )
    assert found["zeroshot/group/examples"] == 60  # of all folds; a fold's aren't told
    assert "zeroshot/group/examples/fold=1" not in found


def test_a_picture_in_several_rows_is_one_example():
    data = split(20)
    five = data.take(np.repeat(np.arange(20), 1 + np.arange(20) % 5))  # of uneven numbers of captions
    contents = [str(i) for i in np.repeat(np.arange(20), 1 + np.arange(20) % 5)]
    told = replace(five, contents={"image": contents})
    assert ZeroShot("group")(told, embed_text) == ZeroShot("group")(data, embed_text)
    assert len(ZeroShot("group").classified(told, embed_text)[0].rows) == 20
    assert ZeroShot("group")(five, embed_text)["zeroshot/group/examples"] == 60  # nothing says that they are the same


def test_templates_must_have_a_place_for_the_label():
    data = split()
    one, several = (ZeroShot("group", templates=t)(data, embed_text) for t in ("a {}", ("a {}",)))
    assert one == several
    twice = ZeroShot("group", templates=("{} {{or}} {}",))
    asked: list[str] = []
    twice(data, lambda strings: asked.extend(strings) or embed_text(strings))
    assert asked[0] == "animals {or} animals"
    for template, said in (
        ("a photo", r"'a photo' has no {} where the label goes"),
        ("a photo of a {c}", r"has {c}, which is no place for the label: write {}"),
        ("a {0.x}", r"has {0.x}, which"),
        ("a {!r}", r"has {!r}, which"),
        ("a {:>9}", r"has {:>9}, which"),
        ("a { of {}", r"'a { of {}'"),
        ("a } of {}", r"'a } of {}' can't be read \(Single '}' encountered"),
        ("{{}}", r"'{{}}' has no {}"),
    ):
        with pytest.raises(UserError, match=r"ZeroShot\(templates=\.\.\.\): .*" + said):
            ZeroShot("group", templates=(template,))(data, embed_text)
    with pytest.raises(UserError, match="give at least one"):
        ZeroShot("group", templates=())(data, embed_text)


def test_numbers_that_are_no_places_among_the_names_are_named():
    data = replace(split(), columns={"group": [1 + i % 7 for i in range(50)]})  # counted from 1
    with pytest.raises(
        UserError, match=r"ZeroShot\(label='group'\): labels 7: the 7 classes .* numbers 0 to 6\. Count"
    ):
        ZeroShot("group", classes=tuple(sorted(LABELS)))(data, embed_text)
    sparse = replace(data, columns={"group": [10 * (i % 7) for i in range(50)]}, class_names={"group": LABELS})
    with pytest.raises(UserError, match="labels 10, 20, 30, 40, 50: "):
        ZeroShot("group")(sparse, embed_text)
    none = replace(data, columns={"group": [-1.0, 0.0] * 25}, class_names={"group": LABELS})  # -1: TFDS's "no label"
    found = ZeroShot("group")(none, embed_text)
    assert (found["zeroshot/group/examples"], found["zeroshot/group/left_out"]) == (25, 25)


def test_a_model_of_nan_finds_nothing_and_is_told():
    data = split()
    data.embeddings["image"][:] = np.nan
    found = ZeroShot("group")(data, embed_text)
    assert (found["zeroshot/group/top1"], found["zeroshot/group/recall"], found["zeroshot/group/top5"]) == (0, 0, 0)
    assert found["zeroshot/group/not_finite"] == 50
    assert ZeroShot("group", classes=("flags", "places"))(data, embed_text)["zeroshot/group/top5"] == 0  # of two
    blind = ZeroShot("group")(split(), lambda strings: np.full((len(strings), 6), np.nan))
    assert (blind["zeroshot/group/top1"], blind["zeroshot/group/top5"]) == (0, 0)
    assert blind["zeroshot/group/not_finite"] == blind["zeroshot/group/examples"]
