"""Zero-shot classification against its definition."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators.embedded import Embedded
from mmjax.evaluators.zeroshot import ZeroShot
from tests.evaluators.test_classification import precision_by_hand
from tests.evaluators.test_ranking import unit

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
    assert metrics == {
        "zeroshot/group/top1": pytest.approx(np.mean(top1)),
        "zeroshot/group/top5": pytest.approx(np.mean(top5)),
        "zeroshot/group/recall": pytest.approx(np.mean([np.mean(hits) for hits in by_class.values()])),
    }
    assert metrics["zeroshot/group/recall"] != metrics["zeroshot/group/top1"]


def test_each_template_counts_the_same_however_long_its_embedding():
    data = split()
    scaled = lambda strings: embed_text(strings) * np.array([[9.0] if " of " in s else [1.0] for s in strings])  # noqa: E731
    zeroshot = ZeroShot("group", templates=("{}", "a picture of {}"))
    assert zeroshot(data, scaled) == pytest.approx(zeroshot(data, embed_text))


def test_labels_that_are_unknown_or_missing_do_not_count():
    data = split(20)
    data.columns["group"][:5] = [None] * 5
    only = ZeroShot("group", classes=("flags", "food-drink"), name="few")(data, embed_text)
    assert only["few/group/top5"] == 1  # two classes: every counted example is among the first five
    assert ZeroShot("group", classes=("nothing",))(data, embed_text) == {}


def test_collapsed_text_is_not_rewarded():
    data = split()
    assert ZeroShot("group")(data, lambda strings: np.ones((len(strings), 6)))["zeroshot/group/top5"] == 0


def test_errors_name_what_there_is():
    with pytest.raises(ValueError, match="embeds image"):
        ZeroShot("group", modality="audio")(split(), embed_text)
    with pytest.raises(ValueError, match=r"'subgroup'.*it has: group"):
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
        scores = [float(data.embeddings["image"][i].astype(np.float64) @ prompt) for i in rows]
        right = [label in (lists[i] or ()) for i in rows]
        if any(right):
            precisions.append(precision_by_hand(scores, right))
    assert found == {"zeroshot/group/mAP": pytest.approx(np.mean(precisions))}


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
