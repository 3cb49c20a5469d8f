import jax
import numpy as np
import pytest

from mmjax.checkpoint import restore_params
from mmjax.errors import UserError
from mmjax.experiment import build
from mmjax.initial import initialised
from tests.trained import Trained, tiny_config


def test_a_workdir_given_on_the_command_line_is_where_a_tower_starts(trained: Trained):
    experiment = build(tiny_config(trained.table, f"init.towers.image={trained.workdir}"))
    theirs = restore_params(trained.workdir)
    said = []
    ours = initialised(jax.tree.map(np.zeros_like, theirs), experiment, said.append)
    jax.tree.map(np.testing.assert_array_equal, ours["towers_image"], theirs["towers_image"])
    assert all(not leaf.any() for leaf in jax.tree.leaves(ours["towers_text"]))
    assert len(said) == 1
    assert said[0].startswith(f"init towers.image from {trained.workdir}: loaded ")


def test_a_tower_that_the_other_run_lacks_is_named(trained: Trained, tmp_path):
    experiment = build(tiny_config(trained.table, f"init.towers.image={tmp_path}"))
    with pytest.raises(UserError, match=r"is not a workdir of a run"):
        initialised({}, experiment, print)
