"""The bytes that blocks move on a GPU are those of the committed record."""

import importlib.util
import json
from pathlib import Path

import pytest

from mmjax.train.plan.gpus import PLUGINS
from tests.benchmarks.blocks_gpu import VARIANTS, moved

RECORD = Path(__file__).parents[2] / "experiments/records/blocks_gpu.json"
ROWS = {row["variant"]: row for row in json.loads(RECORD.read_text())["rows"]}
COMPILER = any(importlib.util.find_spec(name) for name in PLUGINS)


def test_each_mechanism_of_the_record_saves_what_it_is_for():
    assert set(ROWS) == set(VARIANTS)
    beside = {name: row["beside_products"] for name, row in ROWS.items()}
    for kept in ("gelu_tanh", "quick_gelu"):
        assert beside[f"stored, {kept}"] == pytest.approx(beside["stored"], rel=0.01)
    for how, without in (
        ("stored", "GELU by autodiff"),
        ("stored", "padded at each attention"),
        ("stored", "in a loop"),
        ("dots", "attention again"),
        ("dots", "in a loop"),
    ):
        assert beside[how] < 0.98 * beside[f"{how}, {without}"], without
    assert ROWS["dots"]["temporaries"] < ROWS["stored"]["temporaries"]


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER, reason="needs CUDA's compiler (extra plan-gpu)")
@pytest.mark.parametrize("name", ["stored", "dots"])
def test_blocks_move_no_more_than_in_the_record(name):
    got = moved(name)
    for field in ("beside_products", "temporaries"):
        assert got[field] <= 1.03 * ROWS[name][field], field
