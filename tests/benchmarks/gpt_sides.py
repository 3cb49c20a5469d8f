"""The sides of `tests.benchmarks.gpt_beside_torch`: one GPT-2, trained by mmjax and by PyTorch on the same batches.

PyTorch's is `transformers`' model with `torch.optim.AdamW`: the same learning rate of each step, the same decayed
parameters (matrices and tables), the same clip of the gradient's norm.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fiddle as fdl
import jax
import numpy as np
from flax import linen as nn

from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Prepared, batches, prepare
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf import layout as hf_layout
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.mesh import Mesh, put
from mmjax.train.step import compile_train_step, make_train_step
from tests.benchmarks.sizes import FOLDER
from tests.benchmarks.step_sides import allow_any_torchvision
from tests.states import init_state

OBJECTIVE = "words"
Batches = Sequence[dict[str, np.ndarray]]


class Plan(NamedTuple):
    """An experiment, its data with a tokenizer, and the batches of a seed."""

    config: fdl.Config
    built: Experiment
    data: Prepared
    batches: Batches


class Run(NamedTuple):
    """The loss of each step; and the model at the end, PyTorch's."""

    losses: np.ndarray
    model: Any


def plan(seed: int, *overrides: str, data: Prepared | None = None) -> Plan:
    """`experiments/gpt.py:tiny` with overrides."""
    config = load_experiment(f"{FOLDER}/gpt.py:tiny", list(overrides))
    built = build(config)
    data = prepare(built.data) if data is None else data
    stream = batches(data, batch_size=built.batch_size, seed=seed)
    rows = [next(stream) for _ in range(built.steps)]
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    return Plan(config, built, data, rows)


def first_params(made: Plan, seed: int) -> Any:
    """mmjax's own initial parameters of a seed."""
    state = init_state(made.built.pretrainer(), made.built.optimizer, made.batches[0], seed=seed, mesh=_mesh())
    return jax.tree.map(np.asarray, nn.unbox(state.params))


def in_torch(made: Plan, params: Any) -> Any:
    """The model with these parameters, as mmjax writes it for `transformers`."""
    allow_any_torchvision()
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        out = hf_layout.write(Bundle(made.config, {"params": params}, {}, "mmjax"), Path(folder) / "gpt")
        return transformers.GPT2LMHeadModel.from_pretrained(out)


def fresh_in_torch(made: Plan, seed: int) -> Any:
    """The model of the same size with the initial parameters that `transformers` draws."""
    import torch  # pyright: ignore[reportMissingImports]

    model = in_torch(made, first_params(made, seed))
    torch.manual_seed(seed)
    return type(model)(model.config)


def by_mmjax(made: Plan, seed: int) -> Run:
    """A run from mmjax's own initial parameters."""
    built, mesh, losses = made.built, _mesh(), []
    pretrainer, optimizer = built.pretrainer(), built.optimizer
    with jax.set_mesh(mesh):
        state = init_state(pretrainer, optimizer, made.batches[0], seed=seed, mesh=mesh)
        step = compile_train_step(
            make_train_step(pretrainer, optimizer, seed=seed, total_steps=built.steps), state, mesh
        )
        for batch in made.batches:
            state, metrics = step(state, put(batch, mesh))
            losses.append(float(metrics["loss"]))
    return Run(np.array(losses), in_torch(made, jax.tree.map(np.asarray, nn.unbox(state.params))))


def by_torch(made: Plan, model: Any) -> Run:
    """A run of PyTorch from the model's parameters."""
    import torch  # pyright: ignore[reportMissingImports]

    optimizer, losses = made.built.optimizer, []
    assert isinstance(optimizer, AdamW)
    named = list(model.train().named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": optimizer.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=optimizer.peak_lr, betas=(optimizer.b1, optimizer.b2), eps=optimizer.eps)
    for number, batch in enumerate(made.batches):
        for group in adam.param_groups:
            group["lr"] = float(optimizer.learning_rate(number, made.built.steps))
        adam.zero_grad(set_to_none=True)
        total, count = summed(model, batch)
        (total / count).backward()
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        adam.step()
        losses.append((total / count).item())
    return Run(np.array(losses), model)


def summed(model: Any, batch: dict[str, np.ndarray]) -> tuple[Any, int]:
    """The summed loss of the words of a batch but each text's first, and their number."""
    import torch  # pyright: ignore[reportMissingImports]

    ids, real = (torch.from_numpy(np.array(batch[name])) for name in ("text", "text_mask"))
    targets = torch.where(real[:, 1:], ids[:, 1:].long(), -100)
    logits = model(input_ids=ids[:, :-1].long()).logits
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
    )
    return total, int((targets != -100).sum())


def perplexity(made: Plan, model: Any, split: str = "test") -> float:
    """Of a split's words, by PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    sums = np.zeros(2)
    model.eval()
    with torch.no_grad():
        for batch in _whole(made, split):
            total, count = summed(model, batch)
            sums += [total.item(), count]
    return float(np.exp(sums[0] / sums[1]))


def _whole(made: Plan, split: str) -> Iterator[dict[str, np.ndarray]]:
    for batch, columns in evaluation_batches(made.data, split, made.built.batch_size, columns=("id",)):
        yield {name: rows[: len(columns["id"])] for name, rows in batch.items()}


def _mesh() -> Any:
    return Mesh().build(jax.devices()[:1])
