import dataclasses
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.checkpoints import (
    Checkpointer,
    CheckpointError,
    latest_step,
    restore_variables,
    whole_step,
)
from mmjax.runtime.files import archives
from mmjax.runtime.mesh import Mesh
from tests.states import abstract_state
from tests.toy import ToyPretrainer, toy_batch
from tests.train.test_step import OPTIMIZER, assert_same, initial, numpy_of, one_device, train


def state_of(mesh=None, optimizer=OPTIMIZER, width=16, ema=0.9):
    return initial(ToyPretrainer(width), optimizer, mesh or one_device(), ema)


def abstract_of(mesh=None, optimizer=OPTIMIZER, width=16, ema: float | None = 0.9):
    return abstract_state(ToyPretrainer(width), optimizer, toy_batch(0), mesh=mesh or one_device(), ema=ema)


def test_a_run_cut_in_two_ends_like_the_whole_to_the_bit(tmp_path):
    whole, history = train(12, ema=0.9)
    first, _ = train(5, ema=0.9)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(5, first)
    del first
    with Checkpointer(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract_of())
    second, rest = train(12, state=restored, ema=0.9)
    assert_same(second, whole)
    assert [metrics["loss"] for metrics in rest] == [metrics["loss"] for metrics in history[5:]]


def test_a_save_in_flight_is_not_touched_by_the_steps_that_reuse_its_memory(tmp_path):
    state, _ = train(1, ema=0.9)
    saved = numpy_of(state)
    with Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.save(1, state)
        train(8, state=state, ema=0.9)  # donates it
        checkpoints.wait()
        assert_same(checkpoints.restore(abstract_of()), saved)


def test_restored_onto_another_mesh_with_the_same_values_and_types(tmp_path):
    state = state_of(Mesh(data=1, fsdp=8).build())
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(0, state)
        target = abstract_of(Mesh(data=1, fsdp=4, tensor=2).build())
        restored = checkpoints.restore(target)
    assert jax.tree.structure(restored) == jax.tree.structure(state)  # optax's named tuples among them
    assert_same(restored, state)

    def describe(leaf):
        return (leaf.dtype, leaf.sharding)

    assert jax.tree.map(describe, restored) == jax.tree.map(describe, target)


def test_small_arrays_are_not_cut_among_their_replicas(tmp_path, monkeypatch, caplog):
    """A program would be compiled for each shape and slice, while the run waits: seconds, of a real state."""
    mesh = Mesh(data=8).build()
    tree = {f"x{n}": jax.device_put(jnp.arange(8.0 * n), NamedSharding(mesh, PartitionSpec())) for n in (31, 37)}

    def compiled(name: str) -> int:
        caplog.clear()
        with Checkpointer(tmp_path / name) as checkpoints, jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
            checkpoints.save(0, tree)
            checkpoints.wait()
            assert_same(checkpoints.restore(tree), tree)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    assert compiled("whole") == 0
    monkeypatch.setattr("mmjax.runtime.checkpoints.SLICED", 0)
    assert compiled("cut") > 2


def test_bfloat16_and_integers_keep_their_types(tmp_path):
    tree = {"a": jnp.full((3,), 1 / 3, jnp.bfloat16), "step": jnp.int32(7), "flag": jnp.array([True, False])}
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
        restored = checkpoints.restore(tree)
    assert_same(restored, tree)
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(lambda leaf: leaf.dtype, tree)


def test_the_latest_are_kept_and_a_step_is_saved_once(tmp_path):
    assert latest_step(tmp_path / "nothing") is None
    assert not (tmp_path / "nothing").exists()
    with Checkpointer(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (1, 5, 7, 20):
            assert checkpoints.save(step, {"x": jnp.float32(step)})
        assert not checkpoints.save(20, {"x": jnp.float32(0)})
        checkpoints.wait()
        assert checkpoints.steps() == [7, 20]
        assert float(checkpoints.restore({"x": jnp.float32(0)}, step=7)["x"]) == 7
    assert latest_step(tmp_path) == 20
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["20", "7"]


def test_parameters_alone_or_their_average_as_numpy(tmp_path):
    state, _ = train(2, ema=0.5)
    params, average = numpy_of(state.params), numpy_of(state.ema)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(2, state)
        checkpoints.save(3, dataclasses.replace(state, ema=None))
    loaded = restore_variables(tmp_path, step=2)["params"]
    assert {type(leaf) for leaf in jax.tree.leaves(loaded)} == {np.ndarray}
    assert_same(loaded, params)
    assert_same(restore_variables(str(tmp_path), step=2, ema=True)["params"], average)
    assert_same(restore_variables(tmp_path, ema=True)["params"], params)  # step 3 has none


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"no checkpoint in {tmp_path}/checkpoints"):
        restore_variables(tmp_path)
    with Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="no checkpoint in"):
            checkpoints.restore({"x": jnp.zeros(2)})
        checkpoints.save(4, {"x": jnp.zeros(2)})
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 3 .* there are \[4\]"):
            checkpoints.restore({"x": jnp.zeros(2)}, step=3)


def test_a_mismatch_lists_both_sides(tmp_path):
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(0, {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8), "old": jnp.zeros(1)})
        wanted = {"kernel": jnp.zeros((4, 6)), "bias": jnp.zeros(8, jnp.bfloat16), "new": jnp.zeros(2)}
        with pytest.raises(CheckpointError) as caught:
            checkpoints.restore(wanted)
    message = str(caught.value)
    assert "4 of 4 arrays differ" in message
    assert "kernel: here float32[4, 6], saved float32[4, 8]" in message
    assert "bias: here bfloat16[8], saved float32[8]" in message
    assert "new: here float32[2], saved nothing" in message
    assert "old: here nothing, saved float32[1]" in message


def test_a_state_of_another_model_or_optimiser_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(0, state_of())
        for target, named in (
            (abstract_of(width=24), r"params/objectives|params/towers_image/Dense_0/kernel: here float32\[8, 48\]"),
            (
                abstract_of(optimizer=AdamW(1e-3, frozen=("^towers_text/",))),
                "opt_state/1/mu/towers_text.*: here nothing",
            ),
            (abstract_of(ema=None), "ema/.*: here nothing"),
        ):
            with pytest.raises(CheckpointError, match=named):
                checkpoints.restore(target)


def test_a_workdir_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=f"Could not make checkpoints in {tmp_path}/file"):
        Checkpointer(tmp_path / "file")


def test_no_space_is_said_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("mmjax.runtime.checkpoints._free_bytes", lambda _: 1000)
    with Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="No space"):
            checkpoints.save(0, {"x": jnp.zeros(1000)})
        checkpoints.save(1, {"x": jnp.zeros(10)})
    assert latest_step(tmp_path) == 1


def save_and_wait(checkpoints, step, tree):
    checkpoints.save(step, tree)
    checkpoints.wait()


def test_a_disk_that_fills_while_saving_is_an_error_and_leaves_the_step_before(tmp_path, caplog):
    # A limit on the size of files makes writes fail as a full disk does, in the background thread.
    tree = {"x": np.random.default_rng(0).normal(size=1 << 18)}
    checkpoints = Checkpointer(tmp_path)
    save_and_wait(checkpoints, 1, tree)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=rf"Could not save checkpoints in {tmp_path}.*--workdir"):
            save_and_wait(checkpoints, 2, tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert caplog.text == ""  # Orbax's threads log what they raise, with a traceback each
    assert latest_step(tmp_path) == 1
    with Checkpointer(tmp_path) as again:
        assert_same(again.restore(tree), tree)


def test_saving_and_restoring_say_nothing(tmp_path):
    code = f"""
import jax.numpy as jnp
from mmjax.runtime.checkpoints import Checkpointer, restore_variables
with Checkpointer({str(tmp_path)!r}) as checkpoints:
    checkpoints.save(0, {{"params": {{"x": jnp.zeros(3)}}}})
    checkpoints.restore({{"params": {{"x": jnp.zeros(3)}}}})
restore_variables({str(tmp_path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_other_users_of_absl_are_still_heard(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        logging.getLogger("absl").warning("something else")
    assert "something else" in caplog.text


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A workdir with checkpoints of steps 1 and 2, not to be changed."""
    workdir = tmp_path_factory.mktemp("two")
    with Checkpointer(workdir) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state_of())
            checkpoints.wait()
    return workdir


@pytest.fixture
def two(two_saved, tmp_path):
    return shutil.copytree(two_saved, tmp_path / "run")


def files_of(workdir, step):
    folder = workdir / "checkpoints" / str(step)
    marks = (folder / "_CHECKPOINT_METADATA", folder / "commit_success.txt")  # of which nothing is ever read
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in marks)


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 16
    path.write_bytes(bytes(contents))


DAMAGES = {"flipped": flip, "truncated": lambda path: os.truncate(path, path.stat().st_size // 2), "deleted": os.remove}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_seen_named_and_set_aside(two, damage):
    for number, path in enumerate(files_of(two, 2)):
        workdir = two.parent / f"{damage}-{number}"
        shutil.copytree(two, workdir)
        DAMAGES[damage](workdir / path.relative_to(two))
        with pytest.raises(CheckpointError, match=f"of step 2 in .* is damaged: .*{re.escape(path.name)}"):
            whole_step(workdir, strict=True)
        with pytest.raises(CheckpointError, match="is damaged"):
            restore_variables(workdir)
        assert latest_step(workdir) == 2  # so far nothing was moved
        said = []
        assert whole_step(workdir, say=said.append) == 1
        assert re.search(
            rf"step 2 .*{re.escape(path.name)}.*set aside as {re.escape(str(workdir))}/damaged/2$", said[0]
        )
        assert len(said) == 1
        assert latest_step(workdir) == 1
        assert (workdir / "damaged/2").is_dir()
        restore_variables(workdir)


def test_what_orbax_adds_after_the_digests_may_be_lost(two):
    for path in (two / "checkpoints/2").iterdir():
        if path.name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
            path.unlink()
    with Checkpointer(two) as checkpoints:
        assert whole_step(two) == checkpoints.latest_step() == 2
        assert_same(checkpoints.restore(abstract_of()), state_of())


def test_where_no_checkpoint_is_whole_nothing_is_moved(two):
    for step in (1, 2):
        flip(files_of(two, step)[0])
    with pytest.raises(CheckpointError, match=r"step 2 .*\. The checkpoint of step 1 .* No checkpoint is whole"):
        whole_step(two)
    assert latest_step(two) == 2


def test_what_was_set_aside_is_never_overwritten(two):
    (two / "damaged/2").mkdir(parents=True)
    flip(files_of(two, 2)[0])
    said = []
    whole_step(two, say=said.append)
    assert said[0].endswith("/damaged/2-1")


def test_a_workdir_without_checkpoints_has_no_whole_step(tmp_path):
    assert whole_step(tmp_path) is None


def test_a_checkpoint_that_would_unpack_to_many_times_its_size_is_not_read(tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": {"a": np.zeros(2**20, np.float32)}})
    assert restore_variables(tmp_path)["params"]["a"].shape == (2**20,)
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with pytest.raises(UserError, match=r"checkpoints/1 of 0\.0 MB would unpack to 4\.2 MB, more than 20 times"):
        restore_variables(tmp_path)
