import json
import math

import pytest
from rich.console import Console

from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from mmjax.train.plan import tune as tune_module
from mmjax.train.plan.input_cost import Reading
from mmjax.train.plan.result import Memory, Plan, Seconds
from mmjax.train.plan.tune import KNOBS, meshes, of_blocks, tune, tune_topologies

PAIR = "tests/tiny.py:pair"
DEVICES = 8
REMAT = "towers.image.blocks.remat", "towers.text.blocks.remat"
FASTER = {None: 1.0, "dots": 1.2, "full": 1.5}  # seconds of a step
SMALLER = {None: 100, "dots": 40, "full": 10}  # bytes of temporaries


def imagined(config, topology, limit=150, **given):
    """A plan by rules that are easy to optimise: remat takes time and saves memory, `fsdp` is best at 4, microbatches
    take a little time each."""
    remat, fsdp, microbatches = config.towers["image"].blocks.remat, config.mesh.fsdp, config.microbatches
    if DEVICES % fsdp:
        raise UserError("no such mesh")
    temporaries = SMALLER[remat] // microbatches
    seconds = FASTER[remat] + 0.1 * abs(math.log2(fsdp / 4)) + 0.01 * microbatches
    memory = Memory(20, 0, 0, 0, 0, temporaries, 0, limit)
    return Plan(
        experiment=PAIR, topology=topology, slices=1, chips=DEVICES, devices=DEVICES, hosts=1, mesh={}, batch_size=16,
        microbatches=microbatches, steps=2, fits=memory.needed <= limit, memory=memory, flops=8, model_flops=8,
        reading=Reading(1e-3, 10, "a row"), peak=1.0, host_cores=1.0, seconds=Seconds(seconds, 0.0, 0.0),
    )  # fmt: skip


@pytest.fixture
def compiler(monkeypatch):
    """Replaces the compiler by a rule, and lists the settings that it was asked for."""

    def use(plan):
        asked = []

        def listed(config, topology, **given):
            blocks = config.towers["image"].blocks
            asked.append((blocks.remat, blocks.unroll, config.mesh, config.microbatches))
            return plan(config, topology, **given)

        monkeypatch.setattr(tune_module, "plan", listed)
        return asked

    return use


def best(trials):
    return min((trial for trial in trials if trial.seconds is not None), key=lambda trial: trial.seconds)


def test_the_best_of_all_knobs_is_found_and_nothing_compiled_twice(compiler):
    asked = compiler(imagined)
    trials = tune(load_experiment(PAIR, [f"{path}=full" for path in REMAT]), "cpu:8", most=50)
    assert set(best(trials).setting) == {"mesh.fsdp=4", *(f"{path}=None" for path in REMAT)}
    assert len({str(setting) for setting in asked}) == len(asked) == len(trials)
    assert trials[0].setting == ()


def test_what_is_fast_but_too_large_is_tried_with_more_microbatches(compiler):
    compiler(lambda *arguments, **given: imagined(*arguments, limit=60, **given))
    trials = tune(load_experiment(PAIR), "cpu:8", most=50)
    assert trials[0].seconds is None
    assert set(best(trials).setting) == {"mesh.fsdp=4", "microbatches=4"}  # 20 + 100 / 4
    (alone,) = tune(load_experiment(PAIR), "cpu:8", most=1)  # nothing fits, and no more may be compiled
    assert alone.setting == ()


def test_a_setting_that_fails_is_told_and_skipped(compiler):
    def broken(config, topology, **given):
        if config.towers["image"].blocks.remat == "dots":
            raise RuntimeError("INTERNAL: the compiler's own mistake\nand its trace")
        return imagined(config, topology)

    compiler(broken)
    console = Console(record=True, width=160)
    config, given = load_experiment(PAIR, ["batch_size=32"]), ["batch_size=32"]
    found = tune_topologies(config, ["cpu:8"], name=PAIR, given=given, console=console)["cpu:8"]
    assert {trial.error for trial in found if trial.plan is None} == {"INTERNAL: the compiler's own mistake"}
    text = console.export_text()
    assert "skipped: INTERNAL: the compiler's own mistake" in text
    assert f"mmjax train {PAIR} batch_size=32 mesh.fsdp=4 --workdir ..." in text
    assert best(found).setting == ("mesh.fsdp=4",)


def test_an_interrupted_tuning_prints_and_keeps_what_it_has(compiler, tmp_path):
    def interrupted(config, topology, **given):
        if config.mesh.fsdp == 2:
            raise KeyboardInterrupt
        return imagined(config, topology)

    asked = compiler(interrupted)
    console, path = Console(record=True, width=160), tmp_path / "tuned.json"
    found = tune_topologies(load_experiment(PAIR), ["cpu:8", "cpu:4"], name=PAIR, console=console, json_path=path)
    assert list(found) == ["cpu:8"]
    assert len(found["cpu:8"]) == len(asked) - 1 > 0
    assert "interrupted; compiled until then:" in console.export_text()
    kept = json.loads(path.read_text())["cpu:8"]
    assert [each["overrides"] for each in kept] == [list(trial.setting) for trial in found["cpu:8"]]
    assert kept[0]["expected_step_seconds"] == found["cpu:8"][0].seconds


def test_no_more_is_compiled_than_allowed_and_what_it_cannot_begin_with_is_an_error(compiler):
    asked = compiler(imagined)
    tune(load_experiment(PAIR), "cpu:8", most=3)
    assert len(asked) == 3
    with pytest.raises(UserError, match="--tries 0: the number"):
        tune(load_experiment(PAIR), "cpu:8", most=0)
    with pytest.raises(UserError, match="no such mesh"):
        tune(load_experiment(PAIR, ["mesh.fsdp=3"]), "cpu:8")


def test_knobs_offer_what_the_experiment_has():
    config = load_experiment(PAIR, ["mesh.fsdp=4"])
    assert list(meshes(config, 8)) == [
        ("mesh.data=-1", f"mesh.{word}") for word in ("fsdp=1", "fsdp=2", "fsdp=8", "tensor=2")
    ]
    assert list(of_blocks("depth", 3)(config, 8)) == [("towers.image.blocks.depth=3", "towers.text.blocks.depth=3")]
    assert list(of_blocks("no_such_field", 3)(config, 8)) == []
    depths = [config.towers[name].blocks.depth for name in ("image", "text")]
    assert list(KNOBS["unroll"](config, 8)) == [
        ("towers.image.blocks.unroll=1", "towers.text.blocks.unroll=1"),
        tuple(f"towers.{name}.blocks.unroll={n}" for name, n in zip(("image", "text"), depths, strict=True)),
    ]
    assert {"remat", "unroll", "mesh", "microbatches"} <= set(KNOBS)


def test_real_steps_are_compiled(monkeypatch):
    monkeypatch.setattr(tune_module, "KNOBS", {"microbatches": KNOBS["microbatches"]})
    console = Console(record=True, width=80)  # of a log
    found = tune_topologies(load_experiment(PAIR), ["cpu:2"], name=PAIR, most=2, console=console)["cpu:2"]
    assert [trial.setting for trial in found] == [(), ("microbatches=2",)]
    once, twice = (trial.plan for trial in found)
    assert once is not None
    assert twice is not None
    assert (once.microbatches, twice.microbatches) == (1, 2)
    assert once.model_flops == twice.model_flops
    lines = console.export_text().partition(f"{PAIR} on cpu:2, fastest first")[2].splitlines()
    words = {line.split()[0]: line.split() for line in lines if line.strip()}
    best = sorted(found, key=lambda trial: trial.seconds or 0.0)
    for number, trial in enumerate(best, start=1):
        assert f"{trial.seconds:.3g}" in words[str(number)], "the figures are there, however long the settings"
        assert words[f"{number}:"][1:] == list(trial.setting or ("as", "it", "is"))
