"""Every experiment that is shipped: it can be read, written, found in the list, and its training step makes sense."""

import ast
import re

import jax
import pytest

from mmjax.data.pipeline import batch_spec
from mmjax.experiment import record as records
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import build
from mmjax.experiment.load import experiment_name, load_experiment
from mmjax.runtime.mesh import check_batch
from mmjax.train.step import make_train_step
from tests.benchmarks.sizes import FOLDER, experiments, files
from tests.states import abstract_state

FILES = files()
NAMES = [f"{file}:{name}" for file in FILES for name in experiments(file)]


def test_every_file_is_in_the_list():
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("|")]
    listed = {file for row in rows for file in re.findall(r"\b\w+\.py\b", row)}
    assert listed == set(FILES)


@pytest.mark.parametrize("file", [file for file in FILES if file != "quickstart.py"])  # that is no paper, and explains
def test_a_paper_is_a_hundred_lines_or_so(file):
    text = (FOLDER / file).read_text()
    wrapped = [n for n in ast.parse(text).body if isinstance(n, ast.ImportFrom)]  # a line each, however it is wrapped
    assert 60 <= len(text.splitlines()) - sum((n.end_lineno or 0) - n.lineno for n in wrapped) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_through_json_unchanged(name):
    config = load_experiment(f"{FOLDER}/{name}")
    text = records.dumps(config, name)
    assert records.name_of(text) == name
    assert diff(records.loads(text), config) == []
    assert records.dumps(records.loads(text), name) == text


@pytest.mark.parametrize("file", FILES)
def test_a_file_without_a_name_is_its_first_experiment(file):
    first = next(name for name in NAMES if name.startswith(f"{file}:"))
    assert experiment_name(f"{FOLDER}/{file}") == f"{FOLDER}/{first}"


FIRST = [f"{file}:{experiments(file)[0]}" for file in FILES]
# One of each kind of model; the others are slow.
KINDS = ("albef", "bert", "beit3", "clip", "coca", "dialogue", "gpt3", "imagebind", "llava", "mae", "reserve", "scst")


def traced(name: str):
    return pytest.param(name, marks=[] if name.partition(".")[0] in KINDS else [pytest.mark.slow])


@pytest.mark.parametrize("name", map(traced, FIRST))
def test_its_training_step_traces_at_full_size(name):
    """On shapes alone: parts that don't fit, a batch that the mesh can't cut or a path that matches nothing show."""
    built = build(load_experiment(f"{FOLDER}/{name}"))
    mesh = built.mesh.build()
    check_batch(built.batch_size, mesh, built.microbatches)
    pretrainer, spec = built.pretrainer(), batch_spec(built.data, built.batch_size)
    state = abstract_state(pretrainer, built.optimizer, spec, mesh=mesh, ema=built.ema)
    step = make_train_step(pretrainer, built.optimizer, seed=0, total_steps=built.steps, ema=built.ema)
    with jax.set_mesh(mesh):
        after, metrics = jax.eval_shape(step, state, spec)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {f"{objective}/loss" for objective in built.objectives} <= metrics.keys()
