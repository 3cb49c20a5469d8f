"""Every name that this code can write into metrics.jsonl is documented, and nothing else is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.cli.main import main
from mmjax.cli.metric_help import told_families
from mmjax.data.kinds import USUAL
from mmjax.data.pipeline import batch_spec
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.accuracy import Accuracy
from mmjax.evaluate.evaluators.answers import Answers
from mmjax.evaluate.evaluators.captions import Captions
from mmjax.evaluate.evaluators.clip_score import ClipScore
from mmjax.evaluate.evaluators.dialogues import Dialogues
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.losses import Losses
from mmjax.evaluate.evaluators.perplexity import Perplexity
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.ranked_answers import RankedAnswers
from mmjax.evaluate.evaluators.regression import RegressionErrors
from mmjax.evaluate.evaluators.reranked import Reranked
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.span_f1 import SpanF1
from mmjax.evaluate.evaluators.tag_f1 import TagF1
from mmjax.evaluate.evaluators.vqa import VqaAccuracy
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.evaluate.split_dialogues import AnsweredTurn
from mmjax.evaluate.split_predictions import Predicted
from mmjax.evaluate.split_words import Spelled
from mmjax.evaluate.split_writing import WrittenSplit
from mmjax.experiment.definition import Spike
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.optim.optimizers import AdamW
from mmjax.runtime import metrics
from mmjax.runtime.mesh import Mesh
from mmjax.runtime.metric_families import EVALUATION, TRAINING, family, tensorboard_tag
from mmjax.train.step import make_train_step
from tests.states import abstract_state
from tests.toy import ToyPretrainer, toy_batch
from tests.trained import Trained

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINIES = [f"{EXPERIMENTS.parent}/tests/tiny.py:{name}" for name in ("reading", "taught", "measuring", "normed")]


def of_objectives(file: str, *overrides: str) -> set[str]:
    """The metrics of an experiment's objectives; nothing is computed."""
    experiment = build(load_experiment(str(EXPERIMENTS / file), overrides))
    pretrainer, batch = experiment.pretrainer(), batch_spec(experiment.data, batch_size=4)
    keys = {name: jax.random.key(0) for name in ("params", "mask", "dropout")}
    (_, found), _ = jax.eval_shape(lambda: pretrainer.init_with_output(keys, batch, train=False))
    return set(found)


def of_a_step() -> set[str]:
    """The metrics of a step with a rule for spikes, of a batch with waveforms that marks bad examples."""
    optimizer, pretrainer, spike = AdamW(peak_lr=1e-3), ToyPretrainer(), Spike()
    batch = toy_batch(0, 4) | {"id": np.zeros((4, 2), np.uint32), "audio": np.zeros((4, 8), np.int16)}
    batch |= {"audio_mask": np.ones((4, 8), bool), "audio_bad": np.zeros(4, np.int8)}
    mesh = Mesh().build(jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = abstract_state(pretrainer, optimizer, batch, mesh=mesh, spike=spike)
        step = make_train_step(pretrainer, optimizer, seed=0, total_steps=9, spike=spike)
        _, found = jax.eval_shape(step, state, {name: jnp.asarray(array) for name, array in batch.items()})
    return set(found)


class Foretold:
    """The predictions of a model: one of six classes, several of six, the tags of texts of four words, and pairs."""

    kinds = USUAL

    def inputs(self, objective: str) -> tuple[str, ...]:
        return ("image", "text")

    def vectors(self, disturb: tuple[str, float]) -> np.ndarray:
        return np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)

    def __call__(
        self, objective: str, without: tuple[str, ...] = (), labelled: bool = True, disturb: Any = None
    ) -> Predicted:
        random, rows = np.random.default_rng(1), np.arange(20)
        logits = random.normal(size=(20, 4, 3) if objective == "words" else (20, 6)).astype(np.float32)
        if objective == "tags":
            return Predicted(logits, (logits > 0).astype(np.float32), (), "sigmoid", rows)
        if objective == "price":
            return Predicted(logits, logits + 1, (), "regression", rows)
        if objective == "answer":
            return Predicted(random.normal(size=(20, 4, 2)), np.tile([1, 2], (20, 1)), (), "span", rows)
        if objective == "words":
            return Predicted(logits, random.integers(-1, 3, (20, 4)), ("O", "B-A", "I-A"), "softmax", rows)
        return Predicted(logits, rows % 6, tuple("abcdef"), "softmax", rows)

    def matcher(self, objective: str) -> Any:
        return Matched()

    def column(self, name: str) -> list[Any]:
        each = {"said": ["a", "a", "b"], "first": 0, "shares": [0.5, 0.0, 1.0]}
        asked: dict[str, Any] = {"options": [["a", "b"], ["c", "b"]], "relevance": [None, [0.5, 1.0]]}
        return [1, 2] * 20 if name in ("turn", "kind") else [(each | asked)[name]] * 40

    def answered(self, *asked: Any) -> list[AnsweredTurn]:
        return [AnsweredTurn(0, 1, "what?", False, "a", "a"), AnsweredTurn(0, 2, "", True, "b", "c")]

    def ranked_answers(self, objective: str, messages: str, options: Any, history: Any) -> Any:
        keys = [(0, 1), (0, 2)]
        return {key: np.array([-1.0, -2.0]) for key in keys}, {(0, 1): "a", (0, 2): "b"}

    def words(self, objective: str) -> Spelled:
        return Spelled(30.0, 10, 4, 40)

    def option_scores(self, objective: str, *asked: Any) -> Any:
        return {row: np.array([-1.0, -2.0, -3.0]) for row in range(40)}

    def written(self, objective: str, *options: Any) -> WrittenSplit:
        return WrittenSplit(["a dog runs", "a cat sleeps here"], [0, 3])


class Matched:
    """The probability that rows belong together, at random."""

    inputs = ("image", "text")

    def __call__(self, *rows: np.ndarray) -> np.ndarray:
        return np.random.default_rng(2).random(len(rows[0]))


def of_evaluators() -> set[str]:
    """The metrics of every evaluator, also of lists of labels, few shots and folds, and where an embedding is NaN."""
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(40, 4)).astype(np.float32) for name in ("image", "text")}
    vectors["image"][0] = np.nan
    columns: dict[str, list[Any]] = {"kind": ["ab"[i % 2] for i in range(39)] + [None], "fold": ["x", "y"] * 20}
    columns["tags"] = [["a"], ["a", "b"]] * 20
    columns["said"] = [["a", "a", "b"]] * 40
    split = Embedded(vectors, {name: np.ones(40, bool) for name in vectors}, columns)
    split = replace(
        split, fit=split, losses=lambda **_: {"loss": 1.0, "pair/loss": 1.0, "pair/accuracy": 1.0, "examples": 4.0}
    )
    judges = [
        Retrieval(),
        ZeroShot("kind"),
        KNN("kind", folds="fold"),
        KNN("tags"),
        Losses(),
        Losses(name="validation"),
    ]
    again: Any = {"disturb": (("image", 0.1),), "by": "kind"}
    judges += [Accuracy("kind", without_each=True, **again), Retrieval(name="groups", **again)]
    judges += [Accuracy("tags"), TagF1("words"), Reranked("match", top=3), RegressionErrors("price"), SpanF1("answer")]
    judges += [Perplexity("words"), Captions("words", references="said")]
    judges += [RankedAnswers("words", "said", "first", relevance="shares", turn="turn")]
    judges += [Dialogues("words", options="options", relevance="relevance"), ClipScore("words", references="said")]
    judges += [VqaAccuracy("kind", answers="said", kind="kind"), Answers("words", answers="said", kind="kind")]
    judges += [Probe(label, strengths=(1e-2,), shots=(2,), draws=2, folds="fold") for label in ("kind", "tags")]
    split = replace(split, predictions=Foretold())
    speak = lambda strings: rng.normal(size=(len(strings), 4))  # noqa: E731
    return {name for judge in judges for name in judge(split, speak)}


@pytest.fixture(scope="module")
def written(trained: Trained) -> dict[bool, set[str]]:
    """All names, by whether they are of an evaluation."""
    found = {False: of_a_step(), True: of_evaluators()}
    for line in metrics.read(trained.workdir):
        found["split" in line] |= line.keys() - {"step", "split"}
    tinies = "siglip.py:tiny", "bert.py:tiny", "m3ae.py:tiny", "vilt.py:tiny", "lxmert.py:tiny", "reserve.py:tiny"
    for file in (*tinies, "show_and_tell.py:tiny_attention", "scst.py:tiny", *TINIES):
        found[False] |= of_objectives(file)
    found[False] |= of_objectives("scst.py:tiny_words", "objectives.caption.unlikelihood=1.0")
    return found


def test_every_name_that_can_be_written_is_documented(written):
    unknown = {name for evaluation, names in written.items() for name in names if family(name, evaluation) is None}
    assert unknown == set()
    assert len(written[False]) > 60
    assert len(written[True]) > 60


def test_every_documented_name_can_be_written(written):
    known = [(TRAINING, written[False]), (EVALUATION, written[True])]
    documented = [
        (replace(each, names=(one,)), names) for listed, names in known for each in listed for one in each.names
    ]
    missing = [each.names[0] for each, names in documented if not any(each.fits(name) for name in names)]
    # Of the tiny run nothing is cut off, and Java isn't asked.
    elsewhere = ("truncated/", "<evaluator>/<objective>/meteor", "<evaluator>/<objective>/spice")
    assert [name for name in missing if not name.startswith(elsewhere)] == []


@pytest.mark.parametrize(
    ("name", "evaluation", "meaning", "better"),
    [
        ("retrieval/image->text/R@10", True, "recall at k", "higher"),
        ("retrieval/image->text/median_rank", True, "the place", "lower"),
        ("retrieval/image->text/chance_median_rank", True, "what answers at random", None),
        ("probe/a column/with a slash/5shot/top1", True, "top1 or mAP of a probe", "higher"),
        ("knn/kind/top1/fold=a/b", True, "the score on one fold", "higher"),
        ("zeroshot/classes/top1", True, "the share of examples", "higher"),
        ("losses/pair/loss_forward", True, "the contrastive loss by direction", "lower"),
        ("losses/loss", True, "what is minimised", "lower"),
        ("losses/examples", True, "the validation loss", None),
        ("pair/loss", False, "the loss of one objective", "lower"),
        ("bad/image/empty", False, "bad examples so far", "lower"),
    ],
)
def test_a_name_has_the_family_that_fits_best(name, evaluation, meaning, better):
    found = family(name, evaluation)
    assert found is not None
    assert found.meaning.startswith(meaning)
    assert found.better == better
    assert found.sentence.endswith(f"; {better} is better." if better else ".")


def test_numbers_of_ones_own_have_no_family():
    assert family("pair/mine") is None
    assert family("mine/of/something", evaluation=True) is None
    assert family("losses/lr", evaluation=True) is None
    assert tensorboard_tag("pair/mine") == "pair/mine"


def test_what_tells_of_health_and_speed_stands_together_on_tensorboard(written):
    tags = {tensorboard_tag(name) for name in written[False]}
    assert {"health/batch_hash", "health/bad_share", "health/guard/skipped", "health/clipped/audio"} <= tags
    assert {"health/bad/audio/empty", "speed/goodput", "speed/examples_per_second", "loss", "image_text/loss"} <= tags
    first = sorted(tags)[0]
    assert not first.startswith(("bad", "batch", "clipped", "data"))
    assert len(tags) == len(written[False])  # each has a card of its own


@pytest.mark.parametrize(("command", "listed"), [("train", TRAINING), ("evaluate", EVALUATION)])
def test_help_lists_them_all_and_fits_a_terminal(command, listed, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert told_families(listed) in said
    assert max(map(len, told_families(listed).splitlines())) <= 80
    words = " ".join(said.split())
    assert all(name in words and each.sentence in words for each in listed for name in each.names)
