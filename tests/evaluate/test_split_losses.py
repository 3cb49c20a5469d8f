"""The objectives on a split that doesn't train."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from mmjax.data.pipeline import Prepared, batches
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError
from mmjax.evaluate.evaluate import evaluate
from mmjax.evaluate.evaluators.losses import Losses
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.model import evaluate_model
from mmjax.evaluate.split_embedder import SplitEmbedder
from mmjax.evaluate.split_losses import HeldOut
from mmjax.evaluate.tables import Results
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.objectives.keys import step_key
from mmjax.objectives.labels.classify import Classify
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import metrics
from mmjax.runtime.mesh import Mesh
from tests.objectives.rounds import Distilling
from tests.objectives.toys import ToyTower, toy_batch
from tests.states import init_state
from tests.trained import Trained, tiny_config


@dataclass(frozen=True)
class Made:
    """An experiment of random masks at its first step."""

    experiment: Experiment
    data: object
    state: object
    held_out: HeldOut
    embedder: SplitEmbedder

    def variables(self) -> dict:
        return {"params": self.state.params, **self.state.model_state}  # pyright: ignore[reportAttributeAccessIssue]

    def losses(self, split: str, held_out: HeldOut | None = None, step: int = 0, **options) -> dict[str, float]:
        with jax.set_mesh(Mesh().build()):
            return (held_out or self.held_out)(self.variables(), split, step=step, **options)

    def judged(self, *evaluators, workdir, by=None) -> Results:
        with jax.set_mesh(Mesh().build()):
            return evaluate(by or self.embedder, self.variables(), evaluators, step=7, workdir=workdir)

    def batches(self, split: str, count: int, seed: int) -> list[dict[str, np.ndarray]]:
        """As training would read them."""
        stream = batches(self.data, batch_size=16, seed=seed, split=split)  # pyright: ignore[reportArgumentType]
        return [next(stream) for _ in range(count)]


@pytest.fixture(scope="module")
def made(couple_trained: Trained) -> Made:
    experiment = build(tiny_config(couple_trained.table, name="couple"))
    data, pretrainer, mesh = prepared(experiment.data, couple_trained.workdir), experiment.pretrainer(), Mesh().build()
    (batch,) = Made(experiment, data, None, None, None).batches("train", 1, 0)  # pyright: ignore[reportArgumentType]
    state = init_state(pretrainer, experiment.optimizer, batch, seed=0, mesh=mesh)
    return Made(experiment, data, state, HeldOut(pretrainer, data, mesh, 16), SplitEmbedder(pretrainer, data, mesh, 16))


def test_the_means_are_those_of_plain_batches(made: Made):
    """24 examples in batches of 16 are two whole batches; over eight devices as on one."""
    pretrainer, seen = made.experiment.pretrainer(), []
    variables = jax.device_get(made.variables())

    @jax.jit
    def losses(variables, batch, key):
        loss, details = pretrainer.apply(variables, batch, 7, train=False, rngs={"mask": key})
        return {"loss": loss, **details}

    for number, batch in enumerate(made.batches("test", 2, seed=5)):
        seen.append(losses(variables, batch, step_key(5, number, "mask")))
    plain = {name: np.mean([one[name] for one in seen]) for name in seen[0]}
    found = made.losses("test", step=7, seed=5)
    assert found.pop("examples") == 32
    assert found.keys() == plain.keys() > {"loss", "image_text/loss", "image_text/accuracy", "masked_image/loss"}
    for name, value in found.items():
        assert value == pytest.approx(plain[name], rel=1e-4, abs=1e-5), name


def test_the_first_batch_has_the_losses_of_a_runs_first_step(made: Made, couple_trained: Trained):
    values = next(line for line in metrics.read(couple_trained.workdir) if "loss" in line)
    found = made.losses("train", count=1, seed=0)
    assert values["step"] == 1
    assert found.pop("examples") == 16
    for name, value in found.items():
        assert value == pytest.approx(values[name], rel=1e-4, abs=1e-5), name


def test_weights_that_change_are_those_of_the_step(made: Made):
    weights = {"masked_image": optax.linear_schedule(0.0, 3.0, 4, transition_begin=10)}
    pretrainer = replace(made.experiment, weights=weights).pretrainer()
    held_out = HeldOut(pretrainer, made.data, Mesh().build(), 16)  # pyright: ignore[reportArgumentType]
    early, late = (made.losses("test", held_out, step=step, count=1) for step in (9, 14))
    assert late["loss"] - early["loss"] == pytest.approx(3 * early["masked_image/loss"], rel=1e-4)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(made: Made):
    one, again, other = (made.losses("validation", count=1, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one["masked_image/loss"] != other["masked_image/loss"]


def test_a_source_that_lacks_the_split_is_left_out(made: Made):
    mixture = made.experiment.data
    rows = Path(mixture.sources["shapes"].table)
    alone = rows.with_name("train_only.csv")
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    alone.write_text("".join([lines[0], *(line for line in lines if "train" in line)]), encoding="utf-8")
    both = replace(
        mixture, weights={"shapes": 1.0, "more": 9.0}, sources={**mixture.sources, "more": Folder(str(alone))}
    )
    data = Prepared(both, made.data.chains, None)  # pyright: ignore[reportAttributeAccessIssue]
    held_out = HeldOut(made.experiment.pretrainer(), data, Mesh().build(), 16)
    assert made.losses("test", held_out) == made.losses("test")


def test_a_loss_over_nothing_is_no_number(made: Made, tmp_path):
    there = Path(made.experiment.data.sources["shapes"].table)
    rows = [f"{there.parent}/{colour}-disc-4.png,a {colour} disc" for colour in ("red", "green")]

    def held_out(*lines: str) -> HeldOut:
        (tmp_path / "t.csv").write_text("\n".join(["image,text,split", *(f"{line},test" for line in lines)]) + "\n")
        mixture = replace(made.experiment.data, sources={"shapes": Folder(str(tmp_path / "t.csv"))})
        data = Prepared(mixture, made.data.chains, None)  # pyright: ignore[reportAttributeAccessIssue]
        return HeldOut(made.experiment.pretrainer(), data, Mesh().build(), 16)

    alone = made.losses("test", held_out(*(row.partition(",")[0] + "," for row in rows)))  # pictures without captions
    assert alone.keys() >= {"loss", "masked_image/loss"}
    assert not [name for name in alone if name.startswith("image_text/")]
    with pytest.raises(UserError, match="test split would be over nothing: of 16 examples none has what"):
        made.losses("test", held_out(*("," + row.partition(",")[2] for row in rows)))


def test_without_an_input_all_else_is_the_same(made: Made, tmp_path):
    """The same batches and masks, as if no example had its text: what reads pictures alone has the same loss."""
    whole, less = made.losses("test", seed=5), made.losses("test", seed=5, without=("text",))
    assert less["masked_image/loss"] == whole["masked_image/loss"]
    assert "image_text/loss" in whole
    assert not [name for name in less if name.startswith("image_text/")]
    pretrainer, variables, masked = made.experiment.pretrainer(), jax.device_get(made.variables()), []
    run = jax.jit(lambda variables, batch, key: pretrainer.apply(variables, batch, rngs={"mask": key})[0])
    for number, batch in enumerate(made.batches("test", 2, seed=5)):
        batch["text_valid"] = np.zeros(16, bool)
        masked.append(run(variables, batch, step_key(5, number, "mask")))
    assert less["loss"] == pytest.approx(float(np.mean(masked)), rel=1e-4)
    judged = made.judged(
        Losses("test", seed=5), Losses("test", seed=5, without=("text",), name="seen"), workdir=tmp_path
    )
    assert judged["test"]["seen/masked_image/loss"] == less["masked_image/loss"]
    assert "losses/image_text/loss" in judged["test"]
    assert "seen/image_text/loss" not in judged["test"]
    with pytest.raises(UserError, match=r"without 'txet', but the inputs are .*did you mean text"):
        made.losses("test", without=("txet",))


def test_memory_is_saved_as_in_training(made: Made):
    def traced(microbatches: int) -> str:
        held_out = HeldOut(made.experiment.pretrainer().clone(microbatches=microbatches), made.data, Mesh().build(), 16)  # pyright: ignore
        (batch,) = made.batches("test", 1, 0)
        with jax.set_mesh(Mesh().build()):
            return str(jax.make_jaxpr(held_out._losses)(made.variables(), batch, 0, 0, 0))

    assert traced(2).count("length=2") == traced(1).count("length=2") + 1  # a scan of its own


def test_a_split_is_not_embedded_for_losses_alone(made: Made, tmp_path, monkeypatch):
    embedded, split = [], made.embedder.split
    monkeypatch.setattr(
        made.embedder, "split", lambda v, name, inputs=(): embedded.append(name) or split(v, name, inputs)
    )
    made.judged(Losses("validation", batches=1), Losses("test", batches=1), Retrieval("test"), workdir=tmp_path)
    assert embedded == ["test"]


def test_microbatches_that_do_not_divide_this_machines_batch_do_not_matter(made: Made):
    pretrainer = made.experiment.pretrainer().clone(microbatches=5)
    held_out = HeldOut(pretrainer, made.data, Mesh().build(), 16)  # pyright: ignore[reportArgumentType]
    assert made.losses("test", held_out, count=1)["loss"] == pytest.approx(
        made.losses("test", count=1)["loss"], rel=1e-5
    )


def test_the_evaluator_tells_them_by_flat_names(made: Made, tmp_path):
    several = Losses("test"), Losses("test", batches=1, name="few"), Losses("validation", seed=3)
    found = made.judged(*several, workdir=tmp_path)
    whole = made.losses("test", step=7)
    assert found["test"] == {f"losses/{name}": value for name, value in whole.items()} | {
        f"few/{name}": value for name, value in made.losses("test", step=7, count=1).items()
    }
    assert found["validation"]["losses/loss"] == made.losses("validation", step=7, seed=3)["loss"]


def test_a_run_can_be_judged_by_its_losses(couple_trained: Trained, tmp_path, capsys):
    path = tmp_path / "found.json"
    evaluate_model(couple_trained.workdir, evaluators=[Losses("test"), Losses("train")], json_path=path)
    said = capsys.readouterr().out
    assert "losses/masked_image" in said
    assert "losses: 32 examples" in said
    found = json.loads(path.read_text())
    logged = [line["loss"] for line in metrics.read(couple_trained.workdir) if "loss" in line]
    first, last = logged[0], logged[-1]
    assert abs(found["train"]["losses/loss"] - last) < 0.3 * (first - last)  # what was learnt shows


def test_bad_input(made: Made, tmp_path):
    with pytest.raises(UserError, match=r"Losses\(batches=0\) must be at least 1"):
        made.judged(Losses("test", batches=0), workdir=tmp_path)
    with pytest.raises(SplitNotFoundError, match="tset"):
        made.judged(Losses("tset"), workdir=tmp_path)

    class Cached:
        losses = predictor = None
        kinds = {}

        def split(self, variables, split, inputs=()):
            return made.embedder.split(variables, split, inputs)

        def text(self, variables, strings):
            raise NotImplementedError

    with pytest.raises(UserError, match="Losses need the model"):
        made.judged(Losses("test"), workdir=tmp_path, by=Cached())


def test_where_a_teacher_is_read_what_is_judged_is_its_own():
    """Evaluation has one set of parameters: those of the average, where there is one."""
    pretrainer, batch, mesh = Pretrainer({"image": ToyTower("image")}, {"distil": Distilling()}), toy_batch(4), Mesh()
    params = nn.unbox(pretrainer.init({"params": jax.random.key(0), "mask": jax.random.key(1)}, batch))["params"]
    held_out = HeldOut(pretrainer, None, mesh.build(jax.devices()[:1]), 4)  # pyright: ignore
    (numbers, counts) = held_out._losses({"params": params}, batch, 0, 0, 0)
    rngs = {"mask": step_key(0, 0, "mask")}
    expected, _ = pretrainer.apply({"params": params, "ema": params}, batch, 0, train=False, rngs=rngs)  # pyright: ignore
    np.testing.assert_allclose(numbers["loss"], expected, rtol=1e-6, atol=1e-9)
    assert counts == {"distil": batch["image_valid"].sum()}


def test_a_split_without_labels_has_no_loss_of_them():
    """It would be 0, as of a model that is always right."""
    pretrainer = Pretrainer({"image": ToyTower("image")}, {"kind": Classify("kind", 3, ("image",))})
    labels = {"kind": np.zeros(4, np.int32), "kind_valid": np.zeros(4, bool)}
    batch, mesh = toy_batch(4) | labels, Mesh().build(jax.devices()[:1])
    params = nn.unbox(pretrainer.init(jax.random.key(0), batch))["params"]
    _, counts = HeldOut(pretrainer, None, mesh, 4)._losses({"params": params}, batch, 0, 0, 0)  # pyright: ignore
    assert counts == {"kind": 0}
