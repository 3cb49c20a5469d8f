"""Zero-shot classification against its definition."""

import zlib

import numpy as np
import pytest

from mmjax.evaluators.embedded import Embedded
from mmjax.evaluators.zeroshot import ZeroShot
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
