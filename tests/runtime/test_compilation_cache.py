"""A second start finds the programs that a first one compiled."""

import os
import subprocess
import sys

from tests.commands import ROOT

COUNTED = """
import jax
from mmjax.runtime.compilation_cache import use_compilation_cache
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
use_compilation_cache()
jax.jit(lambda x: x + 1)(jax.numpy.zeros(3))
print("hits", events.count("/jax/compilation_cache/cache_hits"), events.count("/jax/compilation_cache/cache_misses"))
"""
PROGRAMS = """
import hashlib, jax, numpy
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.train.setup import Setup
setup = Setup.here(build(load_experiment("experiments/mae.py:tiny", ("batch_size=8",))))
batch = {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in setup.spec.items()}
with jax.set_mesh(setup.mesh):
    state = setup.abstract_state()
    for program in (setup.creation[0].lower(numpy.uint32(0)), setup.train_step(state).lower(state, batch)):
        print("program", hashlib.sha256(program.as_text().encode()).hexdigest())
"""


def told(program: str, **environment: str) -> str:
    """What a process says in its last lines, with nothing set of where compiled programs go but by `environment`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPIL", "JAX_PERSIST"))}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=ours | environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_one_process_compiled_the_next_one_reads(tmp_path):
    assert "hits 0 " in told(COUNTED, XDG_CACHE_HOME=str(tmp_path))
    kept = list((tmp_path / "mmjax" / "compiled").glob("jit_*"))
    assert kept
    hits, misses = told(COUNTED, XDG_CACHE_HOME=str(tmp_path)).split()[-2:]
    assert (int(hits), int(misses)) == (len(kept), 0)
    elsewhere = tmp_path / "chosen"
    told(COUNTED, XDG_CACHE_HOME=str(tmp_path / "no"), JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert elsewhere.is_dir()
    assert not (tmp_path / "no").exists()


def test_the_programs_of_a_run_are_the_same_text_in_every_process():
    """They are looked up by it: nothing in it may come of the order of a set, say."""
    first, second = (told(PROGRAMS, PYTHONHASHSEED=value) for value in ("0", "1"))
    assert first.count("program") == 2
    assert first == second
