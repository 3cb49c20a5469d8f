"""A run with a teacher and a queue of its keys: cut and gone on with, exported, loaded, started from."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import mmjax
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop.export import export
from mmjax.interop.resolve import resolve
from mmjax.objectives import MaskedText, MomentumContrastive
from mmjax.objectives.contrastive.key_queue import QUEUE
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import restore_variables
from mmjax.train.initialise import initialised, sources
from mmjax.train.loop import train
from tests.trained import tiny_config

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def run(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps. Not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "taught"
    train(tiny_config(shapes, name="taught"), workdir)
    return workdir


def queue_of(variables: dict) -> dict:
    return variables[QUEUE]["objectives_image_text"]


def test_a_killed_run_goes_on_with_its_queue_to_the_bit(run: Path, shapes: str, tmp_path: Path, capsys) -> None:
    """What a kill after the third step leaves: that step's checkpoint, and lines of metrics of later ones."""
    copy = shutil.copytree(run, tmp_path / "copy")
    for step in (4, 5, 6):
        shutil.rmtree(copy / f"checkpoints/{step}")
    train(tiny_config(shapes, name="taught"), copy)
    assert "goes on after step 3" in capsys.readouterr().out
    for ema in (False, True):
        jax.tree.map(np.testing.assert_array_equal, restore_variables(copy, ema=ema), restore_variables(run, ema=ema))
    lost, whole = ({line["step"]: line["loss"] for line in metrics.read(at)} for at in (copy, run))
    assert lost == whole
    assert len(whole) == 6
    queues = [queue_of(restore_variables(run, step)) for step in (3, 6)]
    assert [int(queue["next"]) for queue in queues] == [16, 0]
    assert not np.array_equal(queues[0]["image_keys"], queues[1]["image_keys"])
    assert (np.linalg.norm(queues[1]["text_keys"], axis=1) > 0.99).all()


def test_an_exported_model_has_no_queue_and_embeds_as_the_run_s(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", say=lambda text: None)
    exported, own = bundles.read(tmp_path / "out"), resolve(run)
    assert set(exported.variables) == {"params"}
    assert set(own.variables) == {"params", QUEUE}
    texts = ["a red", "a bar"]
    np.testing.assert_array_equal(mmjax.load(tmp_path / "out").embed(text=texts), mmjax.load(run).embed(text=texts))
    assert QUEUE not in mmjax.load(run)._bundle.variables
    fewer = {name: x for name, x in queue_of(own.variables).items() if name != "next"}
    with pytest.raises(UserError, match=r"queue/objectives_image_text/next \(\) is missing"):
        bundles.check_bundle(replace(own, variables={**own.variables, QUEUE: {"objectives_image_text": fewer}}))


def test_a_run_that_starts_from_another_has_a_queue_of_its_own(run: Path, shapes: str, tmp_path: Path) -> None:
    starts = [f"init.{part}={run}" for part in ("towers.image", "objectives.image_text")]
    experiment, said = build(tiny_config(shapes, *starts, name="taught")), []
    theirs = resolve(run).variables
    fresh = jax.tree.map(np.zeros_like, theirs)
    ours = initialised(fresh, experiment, sources(experiment, said.append), said.append)
    np.testing.assert_array_equal(
        ours["params"]["objectives_image_text"]["temperature"], theirs["params"]["objectives_image_text"]["temperature"]
    )
    jax.tree.map(np.testing.assert_array_equal, ours[QUEUE], fresh[QUEUE])
    assert len(said) == 2


def test_the_guide_s_example_can_be_written_so() -> None:
    guide = (Path(__file__).parents[2] / "experiments" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"\n\n((?: {4}.*\n)+?    ema=0\.995,\n)", guide)
    said = eval(f"dict({block})", {"MomentumContrastive": MomentumContrastive, "MaskedText": MaskedText})
    taught = said["objectives"].values()
    assert [len(objective.views()) for objective in taught] == [4, 2]
    assert all(view.teacher for objective in taught for view in objective.views()[len(objective.views()) // 2 :])
