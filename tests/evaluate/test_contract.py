"""What an evaluator says of itself, of one's own above all: by a base whose defaults every path goes by."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmjax.data.sources.splits import WHOLE
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from mmjax.evaluate import KNN, Embedded, Evaluator, Gallery, Losses, Probe, Retrieval, ZeroShot
from mmjax.evaluate.benchmarks import BENCHMARKS, On, benchmark
from mmjax.evaluate.contract import check_evaluators, protocols, splits_read
from mmjax.evaluate.evaluate import check_judged, evaluate
from mmjax.evaluate.model import choose
from mmjax.evaluate.report.findings import Collector
from mmjax.evaluate.tables import Results
from mmjax.evaluate.watch import _Judge, _next, _scored
from mmjax.runtime import metrics


@dataclass(frozen=True)
class Spread(Evaluator):
    """How far each modality's embeddings lie from their mean: one of one's own, in ten lines."""

    split: str = "test"

    def __call__(self, embedded: Embedded, embed_text) -> dict[str, float]:
        far = {m: np.linalg.norm(x - x.mean(axis=0), axis=1) for m, x in embedded.embeddings.items()}
        return {f"{self.name}/{modality}": float(np.mean(each)) for modality, each in far.items()}


@dataclass(frozen=True)
class Alone:
    """All that an evaluator has, but for the base."""

    split: str = "test"
    when: str = "always"
    name: str = "alone"
    fit_split: str | None = None

    def __call__(self, embedded: Embedded, embed_text) -> dict[str, float]:
        return {}


class Vectors:
    """Embeddings at random, in the place of a model's (`evaluate.Embeds`)."""

    losses = predictor = None
    kinds: dict[str, Any] = {}

    def split(self, variables: Any, split: str, inputs: Any = ()) -> Embedded:
        drawn = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)
        unit = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
        there = np.ones(12, bool)
        columns = {"id": list(range(12)), "text": list("abcdefghijkl"), "kind": ["x", "y"] * 6}
        return Embedded({"image": unit[0], "text": unit[1]}, {"image": there, "text": there}, columns, split=split)

    def text(self, variables: Any, strings: Any) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[: len(strings)]


def run(*evaluators: Evaluator) -> Results:
    return evaluate(Vectors(), {}, evaluators, step=1, workdir=None)


def test_an_evaluator_of_ones_own_is_run_beside_others_and_on_a_page():
    collector = Collector([Spread(), Retrieval("test", "kind")], raw=lambda row, modality: None)
    values = run(Spread(), Retrieval("test", "kind", at=(1,)), collector)["test"]
    vectors = Vectors().split({}, "test").embeddings
    for modality, each in vectors.items():
        expected = np.sqrt(((each - each.mean(axis=0)) ** 2).sum(axis=1)).mean()
        assert values[f"spread/{modality}"] == pytest.approx(expected)
    (found,) = collector.kept
    assert found.numbers == values
    assert found.same == "kind"
    assert found.classified == []
    assert found.protocols == [Retrieval("test", "kind").protocol]


def test_what_it_leaves_out_is_as_the_base_says():
    own = Spread()
    assert (own.name, own.when, own.inputs, own.fit_split, own.splits) == ("spread", "always", (), None, ("test",))
    assert own.possible(["audio"], ["image"], prompts=False)  # nothing is known that it couldn't do without
    assert own.judged(Vectors().split({}, "test"), None)[1] == []  # pyright: ignore[reportArgumentType]
    assert choose([own], ["spread"], "validation") == [Spread("validation")]
    assert choose([own], None, None) == [own]
    assert protocols([own]) == {"test": []}
    check_judged({"test": {}}, [own], "it")  # that compares nothing
    with pytest.raises(UserError, match="there was nothing to judge for knn"):
        check_judged({"test": {}}, [own, KNN("kind", "test")], "it")


@pytest.mark.parametrize(
    ("evaluator", "says"),
    [
        (Retrieval("test"), {"between_modalities": True, "splits": ("test",)}),
        (Retrieval(same="kind"), {"columns": ("kind",), "same": "kind"}),
        (ZeroShot("kind"), {"columns": ("kind",), "classifies": "kind", "modalities": ("image",), "embeds_text": True}),
        (ZeroShot("kind", folds="fold"), {"columns": ("kind", "fold")}),
        (KNN("kind", "test"), {"splits": ("test", "train"), "classifies": "kind", "columns": ("kind",)}),
        (Probe("kind", modality="audio"), {"splits": ("validation", "train"), "modalities": ("audio",)}),
        (Losses(), {"reads_embeddings": False, "classifies": None, "gives_numbers": True}),
        (Gallery(), {"gives_numbers": False, "columns": (), "inputs": ("image",)}),
        (Collector([], lambda row, modality: None), {"gives_numbers": False, "reads_classified": True}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_says_of_itself_what_is_asked_of_it(evaluator: Evaluator, says: dict[str, Any]):
    assert {name: getattr(evaluator, name) for name in says} == says


def test_what_can_be_judged_goes_by_what_it_says():
    assert not Retrieval().possible(["image", "text"], ["image"], prompts=False)
    assert Retrieval().possible(["image", "text"], ["image", "text"], prompts=True)
    assert not ZeroShot("kind").possible(["image"], ["image"], prompts=False)  # its prompts need a text tower
    assert ZeroShot("kind").possible(["image"], ["image", "text"], prompts=True)
    assert not KNN("kind", modality="audio").possible(["image"], ["image", "audio"], prompts=False)
    assert KNN("kind").possible(["image"], ["image"], prompts=False)
    on = On(data=None, evaluators=(), default=(), columns=("id", "image", "kind"))  # pyright: ignore[reportArgumentType]
    lacking = [on.lacking(e) for e in (ZeroShot("kind", folds="fold"), Retrieval(same="sort"), KNN("kind"), Spread())]
    assert lacking == ["fold", "sort", None, None]
    assert [e.name for e in BENCHMARKS["cifar100"].evaluators] == ["zeroshot", "knn", "probe"]


def test_of_a_table_all_rows_are_read_by_one_of_ones_own(tmp_path):
    (tmp_path / "own.csv").write_text("text,kind\nred,a\nblue,b\n")
    experiment = SimpleNamespace(
        evaluators=[Spread(), KNN("kind", "test")],
        towers={"text": None},
        data=SimpleNamespace(transforms={"text": (Tokenize(Subwords(8), 4),)}, sources={}),
        pretrainer=lambda: SimpleNamespace(inputs=lambda: {"text": "text"}),
    )
    found = benchmark(str(tmp_path / "own.csv"), experiment)  # pyright: ignore[reportArgumentType]
    assert found.evaluators == (Spread(WHOLE),)  # a neighbour's class is that of a picture, which isn't there
    assert [found.lacking(e) for e in found.evaluators] == [None]


def test_a_split_that_is_no_field_cannot_be_set():
    @dataclass(frozen=True)
    class Fixed(Evaluator):
        def __call__(self, embedded, embed_text):
            return {}

    assert splits_read([Fixed(), KNN("kind", "test")]) == ["validation", "test", "train"]
    with pytest.raises(
        UserError, match=r"fixed is judged on the validation split, .* write `split: str = .validation.`"
    ):
        choose([Fixed()], None, "test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Alone(),
            r"Alone\(split='test', .* is no evaluator: .* inherits from mmjax.evaluate.Evaluator, as `class Alone",
        ),
        (Retrieval, r"Retrieval is a class: an evaluator is one of mmjax.evaluate, such as Retrieval\(\)"),
        (len, "<built-in function len> is no evaluator"),
    ],
)
def test_what_does_not_inherit_from_the_base_is_refused_by_name(given: Any, message: str):
    for refused in (
        lambda: check_evaluators([Spread(), given]),
        lambda: run(given),
        lambda: choose([given], None, None),
        lambda: choose([Spread()], [given], None),
        lambda: splits_read([given]),
    ):
        with pytest.raises(UserError, match=message):
            refused()


def test_a_watch_judges_a_checkpoint_once_though_an_evaluator_found_no_numbers(tmp_path, monkeypatch):
    """Of a split where nothing can be compared there is a line without a number: it isn't judged for ever."""
    assert _scored(Gallery(), {"step": 8})
    assert not _scored(Gallery(), None)
    assert not _scored(Spread(), {"step": 8, "retrieval/image->text/R@1": 0.5})
    assert _scored(Spread(), {"step": 8, "spread/image": 0.5})
    (tmp_path / "experiment.json").write_text("{}")
    judge = _Judge.__new__(_Judge)
    judge.record, judge.evaluators = "{}", [Spread(), Retrieval("test")]
    judge.experiment = SimpleNamespace(steps=8)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr("mmjax.evaluate.watch.saved_steps", lambda workdir: [8])
    monkeypatch.setattr("mmjax.evaluate.watch.checkpoint_identity", lambda workdir, step: "this")
    done: set[tuple[int, str | None, int]] = set()

    def following() -> list[int]:
        return _next(Path(tmp_path), judge, set(), done).evaluators

    assert following() == [0, 1]
    metrics.write_watched(tmp_path, 8, "test", {"spread/image": 0.5})
    assert following() == [1]
    done.add((8, "this", 1))
    assert following() == []
    done = {(8, "another", 1)}  # of a checkpoint that another one has replaced since
    assert following() == [1]
