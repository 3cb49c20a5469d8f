"""GPUs by name: the cards, what the compiler is told of them, and requests that can't be met."""

import importlib.util
import json
import sys
import tomllib
from pathlib import Path

import pytest

import mmjax.train.plan
from mmjax.errors import UserError
from mmjax.train.plan.chips import pod
from mmjax.train.plan.gpus import PLUGINS, cards, hosts, target_config


@pytest.mark.parametrize(
    ("topology", "kind", "count", "each"),
    [("h100:8", "h100", 1, 8), ("h200:1", "h200", 1, 1), ("a100:4x8", "a100", 4, 8), ("b200:16x4", "b200", 16, 4)],
)
def test_names(topology, kind, count, each):
    found = hosts(topology)
    assert found is not None
    assert (found.card.kind, found.hosts, found.each) == (kind, count, each)


def test_other_names_are_others():
    assert [hosts(name) for name in ("v5e:16x16", "cpu:8", "", "h1000:8")] == [None] * 4


@pytest.mark.parametrize("topology", ["h100", "h100:", "h100:9", "h100:0", "h100:4x16", "h100:x8", "h100:2x2x2"])
def test_a_host_has_at_most_eight(topology):
    with pytest.raises(UserError, match=f"'{topology}': a host has 1 to 8 GPUs; h100:8 is one host, h100:4x8 are four"):
        pod(topology)


def test_an_unknown_card_names_the_known_ones():
    with pytest.raises(
        UserError, match=r"(?s)unknown topology 'h10:8'.*did you mean h100:8.*h200: 1 to 8.*b200: 1 to 8"
    ):
        pod("h10:8")


def test_slices_are_no_hosts():
    with pytest.raises(UserError, match="slices=2 is for TPUs; 2 hosts of GPUs are h100:2x8"):
        pod("h100:8", slices=2)


def test_cards_by_their_data_sheets():
    """80, 80, 141 and 180 GB, and what 900 GB/s of NVLink and 400 Gbit/s of network are one way."""
    assert {kind: round(card.memory / 1e9) for kind, card in cards().items()} == {
        "a100": 85, "h100": 85, "h200": 151, "b200": 192,
    }  # fmt: skip
    card = cards()["h200"]
    assert (card.bf16, card.bandwidth, card.nvlink, card.network) == (989e12, 4.8e12, 450e9, 50e9)
    assert card.product_rate("bf16") == pytest.approx(0.61 * 989e12)
    assert card.product_rate("f32") == pytest.approx(0.61 * 494e12)
    assert card.product_rate("f32", exact=True) == pytest.approx(0.61 * 67e12)
    assert card.memory_rate == pytest.approx(4.32e12)
    assert [card.network_rate(n) for n in (None, 1, 4, 8, 16)] == [450e9, 50e9, 200e9, 400e9, 450e9]


def test_the_shares_attained_are_those_of_the_committed_record():
    record = json.loads((Path(__file__).parents[3] / "experiments/records/step_gpu.json").read_text())
    (bare,) = [run for run in record["runs"] if run["by"] == "bare products"]
    card = cards()["h200"]
    assert bare["device"] == "NVIDIA H200"
    assert card.attained_products == pytest.approx(bare["tflops"] * 1e12 / card.bf16, abs=0.005)


def test_the_committed_plan_is_near_the_measured_step():
    """Within 1.3 of the H200's step in the same settings; beside the products an H100 moves the same bytes."""
    records = Path(__file__).parents[3] / "experiments/records"
    step = json.loads((records / "step_gpu.json").read_text())
    (true,) = [run for run in step["runs"] if run["by"] == "mmjax dots"]
    plans = {each["topology"]: each for each in json.loads((records / "plan_gpu.json").read_text())["plans"]}
    planned = plans["h200:1"]
    assert planned["measured"]["seconds"] == true["seconds"]
    assert 1 / 1.3 < true["seconds"] / planned["expected_step_seconds"] < 1.3
    assert 1 / 1.3 < true["bytes"] / planned["memory"]["needed"] < 1.3
    products = next(each for each in planned["kernels"] if each["kind"] == "products")
    assert products["flops"] == pytest.approx(true["model_tflop"] * 1e12, rel=1e-6)
    assert plans["h100:1"]["bytes_beside_products"] == pytest.approx(planned["bytes_beside_products"], rel=0.02)


@pytest.mark.parametrize(("setting", "beside", "temporaries"), [("b16 stored", 180e9, 60e9), ("b16 dots", 240e9, 30e9)])
def test_the_planned_settings_move_no_more_than_they_are_to(setting, beside, temporaries):
    """The second is for cards whose memory has other uses."""
    record = json.loads((Path(__file__).parents[3] / "experiments/records/plan_gpu.json").read_text())
    planned = record["settings"][setting]
    assert planned["bytes_beside_products"] <= beside
    assert planned["memory"]["temporaries"] <= temporaries


def test_what_the_compiler_is_told():
    told = target_config(cards()["h100"])
    for line in ("core_count: 132", "device_memory_size: 84942979072", 'platform_name: "CUDA"',
                 "cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }"):  # fmt: skip
        assert line in told
    assert "major: 8 minor: 0 feature_extension: NONE" in target_config(cards()["a100"])
    assert told.count("{") == told.count("}")


def test_the_file_is_installed_with_the_package():
    path = Path(next(iter(mmjax.train.plan.__path__))) / "gpus.toml"
    assert set(tomllib.loads(path.read_text())) == {"attained", *cards()}
    setup = (Path(__file__).parents[3] / "setup.py").read_text()
    assert '"mmjax.train.plan": ["gpus.toml"]' in setup
    assert '"plan-gpu": ["jax[cuda13]"' in setup


def test_without_the_cuda_compiler_the_error_has_the_command(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in PLUGINS else find(name, *rest))
    with pytest.raises(UserError, match=r'h100:8 needs the CUDA compiler: pip install "jax\[cuda13\]".*plan-gpu'):
        pod("h100:8")


def test_a_compiler_that_does_not_go_with_jax_names_the_versions(monkeypatch):
    from jax.experimental import topologies

    def refuses(**options):
        raise RuntimeError("NOT_FOUND: unknown option target_config\nmore")

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: find("jax") if name == PLUGINS[0] else find(name)
    )
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    monkeypatch.setattr(topologies, "get_topology_desc", refuses)
    with pytest.raises(UserError) as error:
        pod("h100:8")
    text = str(error.value)
    assert "(NOT_FOUND: unknown option target_config)" in text
    assert "jax 1.2.3, jaxlib 1.2.3, jax_cuda13_plugin 1.2.3" in text
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in text
    assert 'pip install "jax[cuda13]"' in text
