"""What a model wrote stands on the page under its pictures."""

from dataclasses import replace
from typing import Any

from mmjax.evaluate.report.findings import Collector
from mmjax.evaluate.report.media import Media
from mmjax.evaluate.report.page import About, page
from mmjax.evaluate.report.samples import written_samples
from mmjax.evaluate.samples import SampleLine, WrittenSample, spread
from tests.evaluate.report.made import ATTACK, made, raw

LINES = (SampleLine("asked", "what?"), SampleLine("wrote", ATTACK, False), SampleLine("right is", "two"))


def test_each_sample_has_its_picture_and_its_lines() -> None:
    found = replace(made(), samples=[WrittenSample("captions/words", 3, LINES), WrittenSample("other", 7, LINES[:1])])
    shown = written_samples(found, Media(raw, found.embedded, "0", [10**7]))
    assert shown is not None
    assert shown.count("<img") == 2
    assert shown.count("what?") == 2
    assert [f"<h4>{name}" in shown for name in ("captions/words", "other")] == [True, True]
    assert "✗" in shown
    assert "✓" not in shown
    assert "<script>" not in shown
    whole = page(About("it", None), [found], [])
    assert 'id="writing"' in whole
    assert 'id="writing"' not in page(About("it", None), [made()], [])


def test_the_page_asks_each_evaluator_for_its_samples() -> None:
    class Telling:
        between_modalities, protocol, split, samples = False, None, "test", lambda self, embedded: [SAMPLE]

    evaluators: Any = [Telling(), Telling()]
    collector = Collector(evaluators, raw)
    collector(made().embedded, lambda texts: texts)  # pyright: ignore[reportArgumentType, reportReturnType]
    assert collector.kept[0].samples == [SAMPLE, SAMPLE]


SAMPLE = WrittenSample("captions/words", 1, LINES)


def test_a_few_are_spread_over_all() -> None:
    assert spread(list(range(20)), 4) == [0, 5, 10, 15]
    assert spread([1, 2], 4) == [1, 2]
    assert spread([], 4) == []
