"""What the papers claim of cost, by counting; and how a claim that needs training is judged."""

import json
import math
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import reproduce
from experiments.reproduce import (
    CLAIMS,
    FUSIONS,
    PACKAGES,
    PREPARED,
    RECORD,
    SECONDS,
    T95,
    TINIES,
    Claim,
    effects,
    finished,
    judged,
    key,
    opposite,
    page,
    prepare,
    reached,
    verdict,
)
from mmjax.data import VisualWords, WordTree
from mmjax.data.pipeline import batch_spec
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.runtime.mesh import Mesh
from mmjax.train.plan import flops
from mmjax.train.step import make_train_step
from tests.benchmarks.sizes import FOLDER, size
from tests.states import abstract_state

COUNTED: dict[str, int] = {}  # many arms take the same step, and differ in how many


def step_flops(name, overrides=()):
    """Of a training step, on one device, a multiply and an add counted as two: an example's share in a step of four."""
    built = build(load_experiment(f"{FOLDER}/{name}", [*overrides, "batch_size=4"]))
    pretrainer, spec = built.pretrainer(), batch_spec(built.data, 4)
    known = repr((pretrainer, built.optimizer, {name: (rows.shape, rows.dtype) for name, rows in spec.items()}))
    if known not in COUNTED:
        mesh = Mesh().build(jax.devices()[:1])
        state = abstract_state(pretrainer, built.optimizer, spec, mesh=mesh, ema=built.ema)
        step = make_train_step(pretrainer, built.optimizer, seed=0, total_steps=built.steps, ema=built.ema)
        with jax.set_mesh(mesh):
            COUNTED[known] = flops.count(jax.make_jaxpr(step)(state, dict(spec)))
    return COUNTED[known] / 4


def test_a_locked_tower_costs_its_forward_pass():
    """LiT: no gradient of it is computed."""
    locked, unlocked = step_flops("lit.py:tiny"), step_flops("lit.py:tiny_unlocked")
    image = size("lit.py:tiny").flops["image"]
    assert unlocked - locked == pytest.approx(2 * image, rel=0.05)  # two products for each one forward


def test_half_of_the_patches_cost_half_of_the_image_tower():
    """FLIP: all but the attention's logits, and the CLS, is linear in the patches."""
    half, whole = step_flops("flip.py:tiny"), step_flops("flip.py:tiny_whole")
    text = size("flip.py:tiny").flops["text"]
    recomputed = 3  # forward, and twice as much backward; "dots" keeps the products
    assert (half - recomputed * text) / (whole - recomputed * text) == pytest.approx(0.5, abs=0.05)


EQUAL = [c for c in CLAIMS if c.name.endswith("_in_as_much_compute") or c.name.startswith("sigmoid_")]


RAN = {run.rpartition(" seed=")[0] for run in json.loads(RECORD.read_text(encoding="utf-8"))["runs"]}


def checked(claim: Claim):
    """The cost of arms is counted in every suite until they have run."""
    ran = " ".join(claim.arm) in RAN
    return pytest.param(claim, id=claim.name, marks=[pytest.mark.slow] if ran else [])


@pytest.mark.parametrize("claim", map(checked, EQUAL))
def test_arms_cost_as_much_where_it_is_said(claim):
    def whole(arm):
        built = build(load_experiment(f"{FOLDER}/{arm[0]}", arm[1:]))
        return step_flops(arm[0], arm[1:]) * built.batch_size * built.steps

    assert whole(claim.other) == pytest.approx(whole(claim.arm), rel=0.01)


def test_what_training_decides_is_tried_in_as_much_compute():
    """Two arms, and no claim of time itself: each paper has such a claim, and so has each metric it is judged by."""
    decided = {(claim.paper, claim.metric) for claim in CLAIMS if claim.other and claim.metric != SECONDS}
    assert decided == {(claim.paper, claim.metric) for claim in EQUAL}


def test_verdicts():
    """Against the interval computed by hand: mean 0.02, deviation 0.01, t of two degrees of freedom 4.303."""
    found = verdict([0.01, 0.02, 0.03], threshold=0.0)
    assert (found.effect, found.pairs) == (pytest.approx(0.02), 3)
    assert found.half == pytest.approx(4.303 * 0.01 / math.sqrt(3))
    assert found.word == "undecided"  # 0.02 - 0.0248 is below 0
    assert verdict([0.01, 0.02, 0.03], threshold=-0.01).word == "holds"
    assert verdict([0.01, 0.02, 0.03], threshold=0.05).word == "fails"
    assert verdict([0.5, 0.5], threshold=0.0).word == "undecided"  # two pairs say nothing
    assert verdict([], threshold=0.0).word == "undecided"


def test_student_s_t_by_its_density():
    """The table's numbers leave 2.5 % on each side."""
    for count, t in T95.items():
        freedom = count - 1
        x = np.linspace(-t, t, 200_001)
        scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        assert np.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x) == pytest.approx(0.95, abs=1e-4)


def test_pairs_are_of_one_seed_and_the_page_says_what_was_not_run(tmp_path):
    claim = next(claim for claim in CLAIMS if claim.name == "flip_as_good")
    other = claim.other
    assert other is not None

    made = {"device": "a card", "python": "3.11.0", **dict.fromkeys(PACKAGES, "1.0")}

    def entry(recall):
        train = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0, "examples_per_second": 50.0}]
        found = reached([*train, {"step": 2, "split": "test", **dict.fromkeys(claim.metric, recall)}])
        return found | {"made": made}

    runs = {}
    for seed, (mine, theirs) in enumerate([(0.3, 0.31), (0.4, 0.41), (0.5, 0.51)]):
        runs |= {key(claim.arm, seed): entry(mine), key(other, seed): entry(theirs)}
    del runs[key(other, 2)]
    found, pairs = judged(claim, runs, [0, 1, 2])
    assert pairs == [(0.3, 0.31), (0.4, 0.41)]
    assert found.word == "undecided"
    text = page({"runs": runs})
    assert text.count("not run yet") == len(CLAIMS) - 1 + len(FUSIONS) + len(TINIES)
    runs[key(("clip.py:tiny",), 0)] = entry(0.25)
    (line,) = (line for line in page({"runs": runs}).splitlines() if line.startswith("| `clip.py:tiny`"))
    assert line.startswith("| `clip.py:tiny` | 2 | 5, 4 | test: retrieval/image->text/R@1 0.250, ")
    del runs[key(("clip.py:tiny",), 0)]
    assert "5 runs on a card" in text
    for seed, top1 in enumerate((0.8, 0.9)):
        scores = {f"without {name}/top1": top1 - 0.2 for name in ("image", "text", "audio")} | {"top1": top1}
        line = {"step": 2, "split": "test"} | {f"accuracy/group/{name}": score for name, score in scores.items()}
        runs[key(("fusion.py:late",), seed)] = reached([{"step": 2, "loss": 4.0}, line]) | {"made": made}
    assert "| `late` | 0.850 | 0.800, 0.900 | 0.650 | 0.650 | 0.650 |" in page({"runs": runs})
    runs[key(other, 1)]["made"] = made | {"device": "another card"}
    assert judged(claim, runs, [0, 1, 2])[1] == [(0.3, 0.31)]
    effects({"runs": runs}, tmp_path / "effects.png")  # one pair has no interval
    with Image.open(tmp_path / "effects.png") as picture:
        assert picture.width > picture.height > 50


def test_a_claim_compares_a_run_with_itself():
    """Accuracy with the video less twice that without it, of each seed's run."""
    claim = next(claim for claim in CLAIMS if claim.name == "videobert_fills_words_by_the_video")
    assert (claim.other, claim.times, claim.threshold) == (None, 2.0, 0.0)
    made = {"device": "a card"}
    runs = {}
    for seed, (told, alone) in enumerate([(0.7, 0.3), (0.72, 0.3), (0.68, 0.3)]):
        test = {"losses/words/accuracy": told, "alone/words/accuracy": alone, "losses/seen/accuracy": 0.0}
        runs[key(claim.arm, seed)] = {"splits": {"test": test, "validation": {}}, "made": made}
    found, pairs = judged(claim, runs, [0, 1, 2, 3])
    assert np.array(pairs) == pytest.approx(np.array([(0.7, 0.6), (0.72, 0.6), (0.68, 0.6)]))
    assert (found.effect, found.pairs, found.word) == (pytest.approx(0.1), 3, "holds")
    assert judged(replace(claim, times=2.5), runs, [0, 1, 2])[0].word == "fails"
    assert opposite(claim) == "2 × `alone/words/accuracy`"
    assert opposite(replace(claim, against=())) == "chance"


def test_what_an_arm_reads_is_made_once(tmp_path, monkeypatch, capsys):
    calls, made = [], tmp_path / "runs" / "tree"

    def called(command):
        calls.append(command[3:])
        return subprocess.CompletedProcess(command, int(len(calls) == 1))

    monkeypatch.setattr(reproduce.subprocess, "run", called)
    monkeypatch.setitem(PREPARED, "a.py:tiny", (str(made), ("cluster", "a.py:tiny")))
    with pytest.raises(SystemExit, match=r"cluster a.py:tiny ended with 1, and a.py:tiny reads .*tree"):
        prepare(("a.py:tiny", "steps=5"))
    prepare(("a.py:tiny",))
    assert calls == [["cluster", "a.py:tiny", "--out", str(made)]] * 2
    assert f"cluster a.py:tiny --out {made}" in capsys.readouterr().out
    made.touch()  # its folder is there
    prepare(("a.py:tiny",))
    prepare(("clip.py:tiny",))
    assert len(calls) == 2
    monkeypatch.setitem(PREPARED, "b.py:tiny", (str(made), ("train", "a.py:tiny")))
    prepare(("b.py:tiny",))  # a run may have been stopped, and goes on
    assert calls[2:] == [["train", "a.py:tiny", "--workdir", str(made)]]


@pytest.mark.parametrize("name", PREPARED)
def test_what_is_made_is_what_the_experiment_reads(name):
    """The tree of its chain, in its shape; or the run that its parts start from, which has such parts."""
    path, command = PREPARED[name]
    built = build(load_experiment(f"{FOLDER}/{name}"))
    if command[0] == "train":
        start = build(load_experiment(command[1]))
        assert {load.path for load in built.init.values()} == {path}
        assert built.towers["image"] == start.towers["image"]
        assert built.objectives["caption"].decoder == start.objectives["caption"].decoder
        return
    (words,) = (step for step in built.data.transforms["video"] if isinstance(step, VisualWords))
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert words.tokenizer == WordTree(path, int(options["--branching"]), int(options["--depth"]))
    assert options["--entry"] == "video"


def test_a_run_that_was_stopped_is_none_that_has_ended(tmp_path):
    (tmp_path / "experiment.json").write_text('{"experiment": {"steps": 20}}', encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1.0}\n', encoding="utf-8")
    with pytest.raises(SystemExit, match="stopped after step 10 of 20: the same command again goes on"):
        finished(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 20, "loss": 0.5}\n')
    assert [line["step"] for line in finished(tmp_path)] == [10, 20]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_arms_are_experiments_and_their_metrics_are_measured(claim):
    for arm in filter(None, (claim.arm, claim.other)):
        built = build(load_experiment(f"{FOLDER}/{arm[0]}", arm[1:]))
        kinds = {metric.partition("/")[0] for metric in claim.metric + claim.against}
        assert kinds <= {"seconds", *(e.name for e in built.evaluators if e.split == claim.split)}


def test_the_record_has_the_claims_as_they_are_here():
    known = json.loads(RECORD.read_text(encoding="utf-8"))["claims"]
    assert known == json.loads(json.dumps([asdict(claim) for claim in CLAIMS]))


def test_every_experiment_s_tiny_is_run_to_its_end():
    """All but the quickstart's, whose figures experiments/README.md has, and plain variants of those here."""
    files = [path.name for path in Path("experiments").glob("*.py") if "def tiny()" in path.read_text(encoding="utf-8")]
    assert {f"{file}:tiny" for file in files} <= {arm[0] for arm in TINIES}
