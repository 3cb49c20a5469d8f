import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import fiddle as fdl
import jax
import pytest
from rich.console import Console

from mmjax.data.pipeline import batch_spec
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.objectives import MaskedText
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.plan import plan as plan_module
from mmjax.train.plan.chips import Chip, Pod, pod
from mmjax.train.plan.flops import count
from mmjax.train.plan.gpus import PLUGINS, cards
from mmjax.train.plan.plan import _exhausted, _model_flops, _remats, _traced, plan, plan_topologies
from mmjax.train.plan.terminal import report, size
from tests.benchmarks.plan import made_up
from tests.states import init_state
from tests.train.plan.gpu_program import PRODUCT_FLOPS, PROGRAM

TINY = "tests/tiny.py:tiny"
COUPLE = "tests/tiny.py:couple"
PAIR = "tests/tiny.py:pair"  # what must be compiled over and over, so the least that has a ring
AVERAGED = ("mesh.fsdp=4", "ema=0.9")


@pytest.fixture(scope="module")
def on_eight(programs):
    return plan(load_experiment(PAIR, AVERAGED), "cpu:8", name=PAIR)


@pytest.fixture(scope="module")
def on_two_and_eight(programs, tmp_path_factory):
    """Plans for two topologies without an average, what was printed, and the folder of what was written."""
    console, folder = Console(record=True, width=100), tmp_path_factory.mktemp("plans")
    files = {"json_path": folder / "plan.json", "picture": folder / "plan.png"}
    plans = plan_topologies(load_experiment(PAIR), ["cpu:2", "cpu:8"], name=PAIR, console=console, **files)
    return plans, console.export_text(), folder


def test_what_is_held_is_what_a_run_would_hold(on_eight):
    experiment = build(load_experiment(PAIR, AVERAGED))
    mesh = experiment.mesh.build()
    spec = batch_spec(experiment.data, experiment.batch_size)
    state = init_state(experiment.pretrainer(), experiment.optimizer, spec, seed=0, mesh=mesh, ema=experiment.ema)

    def held(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    assert on_eight.memory.parameters == held(state.params)
    assert on_eight.memory.optimizer == held(state.opt_state)
    assert on_eight.memory.batch == held(put(made_up(experiment), mesh))
    assert on_eight.memory.average == held(state.ema)
    assert on_eight.memory.temporaries > on_eight.memory.batch
    assert on_eight.fits
    assert on_eight.mesh == {"data": 2, "fsdp": 4, "tensor": 1}


def test_the_average_is_held_too_and_fsdp_cuts_what_is_held(on_eight, on_two_and_eight):
    _, whole = on_two_and_eight[0]
    assert on_eight.memory.average == on_eight.memory.parameters < 0.5 * whole.memory.parameters
    assert whole.memory.average == 0


def test_all_that_can_recompute_is_named_once_by_its_path():
    remats = {name: _remats(load_experiment(f"experiments/{name}.py:tiny")) for name in ("m3ae", "clip_resnet")}
    assert remats["m3ae"] == {  # the trunk is both towers'
        "towers.image.trunk.blocks.remat": "dots",
        "objectives.masked.decoder.blocks.remat": "dots",
    }
    assert remats["clip_resnet"] == {"towers.image.remat": None, "towers.text.blocks.remat": "dots"}


def test_recomputation_is_work_but_no_work_of_the_model(on_eight):
    """As `plan` counts both, and without compiling."""
    again = load_experiment(PAIR, [*AVERAGED, "microbatches=2", "towers.image.blocks.remat=full"])
    where = pod("cpu:8")
    assert _model_flops(again, where) == on_eight.model_flops == on_eight.flops
    assert count(_traced(build(again), where)[-1].jaxpr) > 1.2 * on_eight.flops


def test_the_numbers_follow_from_each_other(on_eight):
    numbers = json.loads(json.dumps(on_eight.numbers()))
    step = numbers["expected_step_seconds"]
    assert step == max(on_eight.seconds.products + on_eight.seconds.memory, on_eight.seconds.network) > 0
    assert numbers["examples_per_second"] == pytest.approx(16 / step)
    assert numbers["examples_per_day"] == pytest.approx(16 / step * 86_400)
    assert numbers["chip_hours"] == pytest.approx(2 * step / 3_600 * 8)
    assert numbers["mfu"] == pytest.approx(on_eight.model_flops / step / (8 * on_eight.peak))
    assert numbers["host_cores"] == pytest.approx(os.cpu_count())
    assert numbers["host_cores_needed"] == pytest.approx(16 / step * on_eight.reading.seconds)
    assert numbers["memory"]["needed"] == on_eight.memory.needed
    kinds = {each["kind"]: each["axes"] for each in numbers["collectives"]}
    assert kinds["collective-permute"] == ["data", "fsdp"]  # the ring of the contrastive losses
    assert ["fsdp"] in [each["axes"] for each in numbers["collectives"] if each["kind"] == "all-gather"]


def test_slow_readers_are_named(on_eight):
    slow = dataclasses.replace(on_eight, reading=dataclasses.replace(on_eight.reading, seconds=1e3))
    assert slow.numbers()["input_bound"]
    console = Console(record=True, width=120)
    console.print(report(slow))
    assert "input-bound" in console.export_text()


@pytest.fixture(scope="module")
def on_cards(on_eight):
    """Two hosts of two H100s, whose program is the one made by hand: CUDA's compiler isn't on every machine."""
    card = cards()["h100"]
    chip = Chip(card.bf16, card.memory, card.bandwidth, card.nvlink, card.network, card.host_cores)
    there = Pod("h100:2x2", 1, pod("cpu:4").devices, chip, chips=4, hosts=2, card=card)
    mesh = Mesh(fsdp=2).build(there.devices)
    compiled = plan_module._Compiled(mesh, on_eight.memory, 4 * PRODUCT_FLOPS, True, PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "pod", lambda topology, slices: there)
        patch.setattr(plan_module, "_compiled", lambda experiment, where, say: compiled)
        patch.setattr(plan_module, "_model_flops", lambda config, where: 4 * PRODUCT_FLOPS)
        return plan(load_experiment(PAIR), "h100:2x2", name=PAIR)


def test_cards_have_kernels_and_a_network_that_is_waited_for(on_cards):
    kinds = {each.kind: each for each in on_cards.kernels}
    assert kinds["products"].flops + kinds["attention"].flops == PRODUCT_FLOPS
    times, numbers = on_cards.seconds, json.loads(json.dumps(on_cards.numbers()))
    # 15 kernels and 4 collectives, all so short that starting them is what takes time
    assert times.products == pytest.approx(5 * 2e-6)
    assert times.memory == pytest.approx(10 * 2e-6)
    assert times.network == pytest.approx(4 * 10e-6)
    assert times.exposed == pytest.approx(3 * (10e-6 - 2e-6) + 10e-6)  # three have a product beside them
    assert numbers["expected_step_seconds"] == pytest.approx(64e-6)
    assert numbers["mfu"] == pytest.approx(PRODUCT_FLOPS / 64e-6 / 989e12)
    assert {"kind", "count", "bytes", "flops", "seconds"} == numbers["kernels"][0].keys()
    assert [(each["kind"], each["axes"], each["slow"]) for each in numbers["collectives"]] == [
        ("all-gather", ["fsdp"], False), ("all-reduce", ["data"], True),
    ]  # fmt: skip


def test_cards_on_the_screen(on_cards):
    console = Console(record=True, width=120)
    console.print(report(on_cards))
    text = console.export_text()
    for line in (
        "kernels of a step, on a device",
        "products, attention",
        "3.4e-05 s of it exposed",
        "data, between hosts",
    ):
        assert line in text
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in text
    full = dataclasses.replace(on_cards.memory, temporaries=80, limit=100, parameters=0, optimizer=0, batch=0, other=0)
    console.print(report(dataclasses.replace(on_cards, memory=full)))
    assert "more than jax takes of a GPU unless told: XLA_PYTHON_CLIENT_MEM_FRACTION=0.95" in console.export_text()


def of_texts(*overrides: str) -> fdl.Config:
    """The least that has temporaries: one tower and a masked loss, in a large batch."""
    config = load_experiment(PAIR, ["batch_size=256", *overrides])
    del config.towers["image"], config.data.transforms["image"]
    config.objectives = {"masked_text": fdl.Config(MaskedText, vocab=64)}
    return config


@pytest.fixture
def cramped(monkeypatch, programs):
    """Devices with so little memory that the experiment doesn't fit, and would in four microbatches."""
    needed = {m: plan(of_texts(f"microbatches={m}"), "cpu:2").memory.needed for m in (1, 4)}
    limit = (needed[1] + 3 * needed[4]) // 4
    real = pod("cpu:2")
    little = dataclasses.replace(real, chip=dataclasses.replace(real.chip, memory=limit))
    monkeypatch.setattr(plan_module, "pod", lambda topology, slices: little)
    return limit


def test_what_does_not_fit_is_told_what_would_and_it_is_true(cramped):
    said = []
    found = plan(of_texts(), "cpu:2", say=said.append)
    assert not found.fits
    assert found.memory.needed > cramped == found.memory.limit
    kinds = {remedy.overrides[0].partition("=")[0]: remedy for remedy in found.remedies if remedy.fits}
    assert {"microbatches", "batch_size"} <= kinds.keys()
    for remedy in kinds.values():
        again = plan(of_texts(*remedy.overrides), "cpu:2", remedies=False)
        assert again.fits
        assert again.memory.needed == remedy.needed <= cramped
    assert any("microbatches=" in text for text in said)
    assert plan(of_texts(), "cpu:2", remedies=False).remedies == []


def test_the_compilers_complaint_is_read():
    """In the words of libtpu 0.0.52, and of older ones."""
    new = "the total memory required for HLO temporaries (82.20G) exceeds available HBM (15.75G). HLO module: jit_x"
    assert _exhausted(new) == (int(82.2 * 2**30), int(15.75 * 2**30))
    old = "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
    assert _exhausted(old) == (int(20.5 * 2**30), int(15.75 * 2**30))
    assert _exhausted("no figures") == (0, 0)


def test_bad_requests():
    with pytest.raises(UserError, match=r"batch_size=16 is not divisible by 6"):
        plan(load_experiment(TINY), "cpu:6")
    with pytest.raises(UserError, match="3 devices"):
        plan(load_experiment(TINY, ["mesh.fsdp=2"]), "cpu:3")
    with pytest.raises(UserError, match="there is no folder"):
        plan_topologies(load_experiment(TINY), ["cpu:8"], json_path="/nowhere/at/all.json")


def test_several_topologies_on_the_screen_as_json_and_as_a_picture(on_two_and_eight):
    plans, text, folder = on_two_and_eight
    for planned in plans:
        assert f"{PAIR} on {planned.topology}: {planned.chips} chips" in text
        assert f"fits: {size(planned.memory.needed)} of" in text
    assert "scaling" in text
    assert [each["topology"] for each in json.loads((folder / "plan.json").read_text())] == ["cpu:2", "cpu:8"]
    from PIL import Image

    assert Image.open(folder / "plan.png").size == (1440, 576)


@pytest.mark.slow  # a minute or more
def test_a_step_for_gpus_that_are_not_there(tmp_path):
    """Two hosts of four, by the command line and CUDA's own compiler. FLOPs, memory and collectives are what the model
    and the mesh say they must be."""
    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        pytest.skip("CUDA's compiler isn't installed: pip install \"jax[cuda13]\"")
    out = tmp_path / "plan.json"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-m", "mmjax", "plan", COUPLE, "--topology", "h100:2x4,h100:8", "--json", str(out)]
    done = subprocess.run(
        [*command, "mesh.fsdp=4", "batch_size=64"], cwd=Path(__file__).parents[3], env=env, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kernels of a step" in done.stdout
    assert "cuInit" not in done.stderr
    apart, together = json.loads(out.read_text())
    assert [(each["chips"], each["hosts"], each["fits"]) for each in (apart, together)] == [(8, 2, True), (8, 1, True)]
    for numbers in (apart, together):
        kinds = {each["kind"]: each for each in numbers["kernels"]}
        assert {"products", "elementwise", "reductions", "stacked writes"} <= kinds.keys()
        assert 8 * kinds["products"]["flops"] == pytest.approx(numbers["flops"], rel=0.1)
        times = numbers["seconds"]
        assert numbers["expected_step_seconds"] >= times["products"] + times["memory"]
        assert 0 < times["exposed"] <= times["network"]
        assert {("all-gather", ("fsdp",)), ("reduce-scatter", ("fsdp",)), ("all-reduce", ("data",))} <= {
            (each["kind"], tuple(each["axes"])) for each in numbers["collectives"]
        }
    between = {tuple(each["axes"]) for each in apart["collectives"] if each["slow"]}
    assert ("data",) in between
    assert ("fsdp",) not in between
    assert not any(each["slow"] for each in together["collectives"])


@pytest.mark.slow  # minutes; experiments/records/pods.json has its numbers, by python -m tests.benchmarks.pods
@pytest.mark.skipif(sys.platform != "linux", reason="libtpu is for Linux")
def test_siglip_fits_a_pod_that_is_not_there(tmp_path):
    """The published B/16 at batch 32,768 on 256 chips of v5e, by the command line and the TPU's own compiler."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    # As a user has it: the suite's own settings turn optimisation off.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    command = [sys.executable, "-m", "mmjax", "plan", "experiments/siglip.py", "--topology", "v5e:16x16"]
    root = Path(__file__).parents[3]
    command += ["--json", str(out)]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fits: " in done.stdout
    (numbers,) = json.loads(out.read_text())
    assert (numbers["chips"], numbers["hosts"], numbers["batch_size"]) == (256, 64, 32_768)
    assert numbers["fits"]
    assert 1e9 < numbers["memory"]["needed"] < 4e9
    # 203,155,970 parameters in fp32 over fsdp=8, the few that aren't cut whole
    assert 1 <= numbers["memory"]["parameters"] / (203_155_970 * 4 / 8) < 1.01
    # ViT-B/16 at 224 and a text of 64 tokens: about 46 GFLOP forward, three times that in a step
    assert 3 * 44e9 < numbers["model_flops"] / 32_768 < 3 * 48e9
    ring = next(each for each in numbers["collectives"] if each["kind"] == "collective-permute")
    assert ring["axes"] == ["data", "fsdp"]
    # 128 rows of 768 go round 256 chips, once forward, and backward with their gradient
    assert ring["bytes"] == pytest.approx(3 * 256 * 128 * 768 * 4, rel=0.02)
    assert 0.3 < numbers["mfu"] < 0.7
