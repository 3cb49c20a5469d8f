"""Bad examples are counted by kind, named in a file, never change the rest of a run, and stop it when they are many."""

import json
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from mmjax.cli.main import main
from mmjax.data.bad_example import KINDS
from mmjax.data.pipeline import examples
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import latest_step, restore_variables
from mmjax.train import bad_examples, guard
from mmjax.train.bad_examples import BadExamplesError, summary
from mmjax.train.loop import train
from mmjax.train.replay import replay
from tests.faults.spoil import SPOILT, spoil
from tests.tiny import RATE, SAMPLES, write_shapes
from tests.trained import tiny_config

pytestmark = pytest.mark.usefixtures("programs")

STEPS = 12
HOT = "red-bar-0.png"  # the example whose sound is louder than full scale throughout: no bad one
RUN = (f"steps={STEPS}", "log_every=1", "save_every=4", "most_bad_examples=0.5")


def config(table: str, *overrides: str):
    made = tiny_config(table, *RUN, *overrides)
    made.evaluators = []
    del made.objectives["masked_image"], made.weights["masked_image"]  # which would have to be compiled
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    table = write_shapes(tmp_path_factory.mktemp("spoilt"))
    spoil(table)
    loud = np.resize(np.array([1.5, -1.5], np.float32), SAMPLES // 2)
    soundfile.write((Path(table).parent / HOT).with_suffix(".wav"), loud, RATE, subtype="FLOAT")
    return table


@pytest.fixture(scope="module")
def run(table, programs, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config(table), workdir)
    return workdir


def drawn(table: str, workdir: Path, first: int, last: int) -> list[tuple[int, str]]:
    """Step and id of every spoilt example in those steps, as the stream of indices has them."""
    data = prepared(build(config(table)).data, workdir)
    found = []
    for step in range(first, last + 1):
        names = examples(data, batch_size=16, seed=0, step=step - 1)
        found += [(step, identity) for _, identity in names if identity in SPOILT]
    return found


def written(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "bad_examples.jsonl").read_text().splitlines()]


def test_they_are_counted_by_kind_in_the_metrics(run: Path, table: str):
    lines = metrics.read(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        bad = drawn(table, run, 1, line["step"])
        kinds = Counter("/".join(("bad", *SPOILT[identity])) for _, identity in bad)
        assert {name: count for name, count in line.items() if name.startswith("bad/")} == kinds
        assert line["bad_share"] == pytest.approx(len(bad) / (16 * line["step"]), rel=1e-5)
    assert kinds.keys() == {"/".join(("bad", *kind)) for kind in SPOILT.values()}  # all were drawn


def test_what_was_clipped_is_counted_in_the_metrics(run: Path, table: str):
    data = prepared(build(config(table)).data, run)
    found = {line["step"]: line.get("clipped/audio", 0.0) for line in metrics.read(run)}
    lengths = {
        path.stem: soundfile.info(path).frames for path in Path(table).parent.glob("*.wav") if path.stat().st_size > 100
    }
    for step, share in found.items():
        names = [Path(identity) for _, identity in examples(data, batch_size=16, seed=0, step=step - 1)]
        heard = [name for name in names if SPOILT.get(name.name, ("", ""))[0] != "audio"]
        clipped = sum(lengths[name.stem] for name in heard if name.name == HOT)
        assert share == pytest.approx(clipped / sum(min(SAMPLES, lengths[name.stem]) for name in heard), rel=1e-5)
    assert max(found.values()) > 0.02
    assert min(found.values()) == 0


def test_each_record_is_written_down_once_with_its_step(run: Path, table: str):
    first: dict[str, int] = {}
    for step, identity in drawn(table, run, 1, STEPS):
        first.setdefault(identity, step)
    found = {line["id"]: (line["step"], line["source"], line["modality"], line["kind"]) for line in written(run)}
    assert len(found) == len(written(run)) == len(SPOILT)
    assert found == {identity: (step, "shapes", *SPOILT[identity]) for identity, step in first.items()}


def test_a_run_that_is_cut_off_ends_as_the_whole_one(run: Path, table: str, tmp_path: Path):
    half = config(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bad_examples.BadExamples, "too_many", stop_after(6))
        with pytest.raises(BadExamplesError):
            train(half, tmp_path)
    assert latest_step(tmp_path) in (6, 7, 8)
    with (tmp_path / "bad_examples.jsonl").open("a") as file:
        file.write('{"step": 99, "source": "shapes", "id": "x", "modality": "image", "kind": "empty"}\n{"step": 7, "so')
    train(half, tmp_path)
    assert written(tmp_path) == written(run)
    ours, theirs = restore_variables(tmp_path), restore_variables(run)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    clocks = ("seconds", "goodput", "examples_per_second", "data_wait")
    sides = [[{n: v for n, v in line.items() if n not in clocks} for line in metrics.read(w)] for w in (tmp_path, run)]
    assert sides[0] == sides[1]


def stop_after(step: int):
    def too_many(self, read, values, nothing):
        return BadExamplesError("enough") if read >= step else None

    return too_many


def test_workers_and_memory_make_no_difference(run: Path, table: str, tmp_path: Path):
    train(config(table, "data.workers=1", "data.cache=True"), tmp_path)
    assert written(tmp_path) == written(run)
    jax.tree.map(np.testing.assert_array_equal, restore_variables(tmp_path), restore_variables(run))


def test_too_many_stop_the_run_saved_with_a_summary_and_a_higher_bound_lets_it_go_on(
    run: Path, table: str, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(bad_examples, "LEAST", 64)
    strict = config(table, "most_bad_examples=0.01")
    with pytest.raises(BadExamplesError) as caught:
        train(strict, tmp_path)
    said, step = str(caught.value), latest_step(tmp_path)
    assert step in (5, 6)  # the metrics of a step are read while the next one runs
    bad = drawn(table, tmp_path, 1, 4)
    assert f"{len(bad) / 64:.1%} of the last 64 examples are bad, and most_bad_examples=0.01 allows no more" in said
    for count, kind in [(n, k) for k, n in Counter(" ".join(SPOILT[i]) for _, i in bad).items()]:
        assert f"{count} {kind}" in said
    assert str(tmp_path / "bad_examples.jsonl") in said
    assert said.count(" in shapes: ") >= 3
    with pytest.raises(BadExamplesError):
        train(strict, tmp_path)  # it doesn't pass by being asked again
    train(config(table), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, restore_variables(tmp_path), restore_variables(run))


def test_nothing_is_said_before_a_thousand_examples(run: Path, table: str, tmp_path: Path):
    experiment = build(config(table, "most_bad_examples=0.1"))
    watch = bad_examples.BadExamples(tmp_path, prepared(experiment.data, run), experiment, 0)
    assert watch.too_many(62, {"bad_share": 0.5}) is None  # 992 examples
    assert watch.too_many(63, {"bad_share": 0.1}) is None
    found = watch.too_many(63, {"bad_share": 0.11, "bad/image/empty": 7.0, "bad/text/empty": 0.0})
    assert "11.0% of the last 1,008 examples are bad" in str(found)
    assert "to step 63: 7 image empty. " in str(found)
    assert "set most_bad_examples=0.15 to go on" in str(found)


def test_of_a_short_run_all_bad_are_too_many(run: Path, table: str, tmp_path: Path):
    experiment = build(config(table, "steps=2", "optimizer.warmup_steps=0"))
    (tmp_path / "bad_examples.jsonl").write_text(
        '{"step": 1, "source": "shapes", "id": "x.png", "modality": "image", "kind": "undecodable"}\n'
    )
    watch = bad_examples.BadExamples(tmp_path, prepared(experiment.data, run), experiment, 2)
    assert watch.too_many(1, {"bad_share": 1.0}, True) is None  # the next step may hold a good one
    assert watch.too_many(2, {"bad_share": 0.9}) is None
    found = watch.too_many(2, {"bad_share": 1.0, "bad/image/undecodable": 32.0}, True)
    assert "100.0% of the last 32 examples are bad" in str(found)
    assert "names them; the first ones:\n  image of x.png in shapes: undecodable\n" in str(found)
    # Nothing to learn from is never borne, and need not be bad.
    found = watch.too_many(2, {"bad_share": 0.0}, True)
    assert str(found).startswith("the loss was over nothing: at all of the 2 steps it was 0, and so was its gradient")


def test_a_run_of_which_every_picture_is_bad_fails_however_short_and_whatever_it_bears(tmp_path: Path, capsys):
    table = write_shapes(tmp_path)
    for picture in tmp_path.glob("*.png"):
        picture.write_bytes(b"no picture")
    words = [
        "train",
        "tests/tiny.py:pair",
        "steps=7",
        f"data.sources.shapes.table={table}",
        "--workdir",
        str(tmp_path / "run"),
    ]
    assert main([*words, "most_bad_examples=1.0"]) == 2
    told, said = capsys.readouterr()
    assert "warning: 60 of 72 texts of 'shapes', drawn at random, are longer than the model reads" in told
    assert told.index("warning: 60") < told.index("first step after")
    assert "error: the loss was over nothing: at all of the 7 steps it was 0" in said
    assert "Of the 112 examples that were read here there are 0 with image that can be used, 112 with text" in said
    assert "Bad ones: 112 image undecodable." in said
    assert ".png in shapes: undecodable\n" in said
    assert main(words) == 2  # it doesn't pass by being asked again
    said = capsys.readouterr().err
    assert "error: 100.0% of the last 112 examples are bad, and most_bad_examples=0.1 allows no more" in said


def test_a_replay_says_what_is_wrong_with_which(run: Path, table: str):
    step, identity = drawn(table, run, 1, STEPS)[0]
    said: list[str] = []
    replay(config(table), run, step, said.append)
    (line,) = (line for line in said if f" {identity} " in line)
    assert line.endswith(f"({' '.join(SPOILT[identity])})")


def test_the_counts_are_those_of_the_whole_batch_and_exact():
    rng = np.random.default_rng(0)
    counts, total, shares = guard.fresh(None, 2), np.zeros((2, len(KINDS)), int), []
    count = jax.jit(guard.count_bad_examples)
    for step in range(5):
        codes = {f"{m}_bad": rng.integers(0, len(KINDS) + 1, 64).astype(np.uint8) for m in ("text", "image")}
        counts, told = count(counts, codes, jnp.int32(step))
        for row, modality in enumerate(("image", "text")):
            total[row] += [int((codes[f"{modality}_bad"] == k + 1).sum()) for k in range(len(KINDS))]
        shares.append(np.mean((codes["image_bad"] > 0) | (codes["text_bad"] > 0)))
    np.testing.assert_array_equal(counts["bad"], total)
    assert float(told["bad_share"]) == pytest.approx(np.mean(shares), rel=1e-6)
    assert float(told["bad/text/empty"]) == total[1][KINDS.index("empty")]
    assert summary(told).split(", ")[0].startswith(f"{total.max():,} ")
    assert guard.count_bad_examples(guard.fresh(), {"image_valid": jnp.ones(3, bool)}, jnp.int32(0)) == (
        guard.fresh(),
        {},
    )


def test_the_share_forgets_what_is_long_past():
    counts, count = guard.fresh(None, 1), jax.jit(guard.count_bad_examples)
    codes = {bad: {"image_bad": np.full(5_000, bad, np.uint8)} for bad in (0, 1)}  # two steps are the window
    shares = []
    for step, bad in enumerate((1, 1, 0, 0, 0)):
        counts, told = count(counts, codes[bad], jnp.int32(step))
        shares.append(float(told["bad_share"]))
    assert shares == [1, 1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("value", ["-0.1", "2.0"])
def test_a_share_that_cannot_be_is_refused(value, shapes):
    with pytest.raises(UserError, match="must be a share, from 0 to 1"):
        build(tiny_config(shapes, f"most_bad_examples={value}"))
