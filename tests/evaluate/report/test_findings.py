"""What is kept of an evaluation for its page."""

from dataclasses import replace

import numpy as np

from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.evaluate.report.findings import Collector
from tests.evaluate.report.made import made, raw


def test_numbers_decisions_and_what_is_the_same_are_kept():
    embedded = made(kind=["thing 1", "thing 2"] * 10).embedded
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "split": "test", "retrieval/a->b/R@1": 0.5}]
    texts = dict(zip(embedded.columns["text"], embedded.embeddings["text"], strict=True))

    def embed_text(strings):
        return np.stack([texts[s] for s in strings])

    zeroshot = ZeroShot("kind", "test")
    collector = Collector([Retrieval("test", same="text"), zeroshot], raw, "test")
    embedded = embedded.__class__(
        embedded.embeddings, embedded.valid, embedded.columns, {"image": np.zeros(20)}, "test", history
    )
    assert collector.reads_classified
    given = replace(embedded, classified=zeroshot.classified(embedded, embed_text))
    assert collector(given, embed_text) == {}
    (found,) = collector.kept
    assert found.numbers == {"retrieval/a->b/R@1": 0.5}
    assert found.same == "text"
    assert found.embedded.inputs == {}  # pictures of a whole split would fill the memory
    (classified,) = found.classified
    assert not found.embedded.classified
    share = float(np.mean(classified.truth == classified.found))
    assert share == zeroshot(embedded, embed_text)["zeroshot/kind/top1"]
