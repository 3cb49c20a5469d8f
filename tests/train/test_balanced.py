"""Runs with a balance: they go on to the bit, are recorded, judged, exported, and can be overridden."""

import shutil
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.inference.model import load
from mmjax.interop.export import export
from mmjax.optim import GradNorm, Uncertainty
from mmjax.runtime import metrics
from mmjax.train.loop import train
from tests.trained import tiny_config


def test_a_run_goes_on_to_the_bit(shapes: str, tmp_path: Path) -> None:
    train(tiny_config(shapes, name="normed"), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "6")
    train(tiny_config(shapes, name="normed"), tmp_path / "half")
    whole, half = (load(tmp_path / part).variables for part in ("whole", "half"))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(half), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    lines = [line for line in metrics.read(tmp_path / "whole") if "loss" in line]
    assert lines[0]["masked_image/weight"] == 1
    assert lines[-1]["masked_image/weight"] != lines[0]["masked_image/weight"]
    judged = [line for line in metrics.read(tmp_path / "whole") if "split" in line]
    assert judged[-1]["losses/masked_image/weight"] == pytest.approx(lines[-1]["masked_image/weight"], rel=0.05)
    export(tmp_path / "whole", tmp_path / "out")
    np.testing.assert_array_equal(
        load(tmp_path / "out").embed(text=["a red disc"]), load(tmp_path / "whole").embed(text=["a red disc"])
    )


def test_the_balance_is_a_part_of_the_experiment(shapes: str) -> None:
    experiment = build(tiny_config(shapes, "balance.alpha=0.25", name="normed"))
    assert isinstance(experiment, Experiment)
    assert experiment.pretrainer().balance == GradNorm(alpha=0.25)
    with pytest.raises(UserError, match=r"balance.cross_entropies.*'image'"):
        replace(experiment, balance=Uncertainty(("image",)))
    with pytest.raises(UserError, match=r"balance is a Dense, and none: those of mmjax.optim are"):
        replace(experiment, balance=nn.Dense(3))
