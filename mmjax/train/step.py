"""The training state, and the pure function from one step's state to the next."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree, UInt

from mmjax.errors import UserError
from mmjax.objectives.encoding import EMA
from mmjax.objectives.keys import step_key
from mmjax.objectives.readings import teaches
from mmjax.optim.balance import COLLECTION, ByGradient
from mmjax.optim.base import Optimizer, Params, merge_params
from mmjax.optim.initial import begun_at
from mmjax.runtime.mesh import ACTIVATION_RULES, batch_sharding, replicated, state_shardings
from mmjax.train import guard

Batch = Mapping[str, Any]
Metrics = dict[str, Float[Array, ""]]


class TrainState(struct.PyTreeNode):
    """The state that a run carries from step to step.

    Attributes:
        step: int32, batches seen so far; it advances also where the update was skipped.
        params: nested dict of fp32 arrays, as Linen's `params` (without boxes).
        opt_state: optax's state, of the parameters that train.
        model_state: Linen's other collections (`batch_stats`, ...); an empty dict where there are none.
        ema: moving average of `params`, or None.
        guard: counts of skipped steps and bad examples, see `guard`.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: PyTree
    model_state: dict[str, Any]
    ema: Params | None
    guard: guard.Counts

    def __repr__(self) -> str:
        """Step and size, also for shapes, shardings and donated arrays; the arrays themselves would fill screens."""
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.params) if hasattr(leaf, "shape"))
        try:
            with jax.transfer_guard("allow"):
                step = str(int(self.step))
        except (TypeError, RuntimeError):  # only a shape, traced, or deleted
            step = "?"
        average = "" if self.ema is None else ", and their moving average"
        return f"TrainState(step={step}, {size:,} parameters{average})"


def creation(
    pretrainer: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    *,
    mesh: jax.sharding.Mesh,
    ema: float | None = None,
    spike: guard.Spike | None = None,
) -> tuple[Any, TrainState]:
    """The jitted function from the seed (np.uint32) to the state of step 0, and that state's shapes, dtypes and
    shardings (`jax.ShapeDtypeStruct`), into which a checkpoint is restored; traced once for both.

    The state is created with its shardings: no device ever holds more than its shards. Its values depend on the seed
    alone, not on the mesh. Of `batch` only names, shapes and dtypes are read. `ema`, `spike`: as in `make_train_step`.
    """
    boxed = jax.jit(_creation(pretrainer, optimizer, batch, ema, spike))
    # The seed is an argument: with a constant, XLA would spend its time computing the parameters as it compiles.
    shapes = jax.eval_shape(boxed, np.uint32(0))
    shardings = state_shardings(shapes, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(shapes),
        shardings,
    )
    return jax.jit(lambda seed: nn.unbox(boxed(seed)), out_shardings=shardings), abstract


def _creation(
    pretrainer: nn.Module, optimizer: Optimizer, batch: Batch, ema: float | None, spike: guard.Spike | None
) -> Callable[[Int[Array, ""] | int], TrainState]:
    """A function from the seed to the state, its parameters boxed with the names of their logical axes."""
    rows = {name: (array.shape, jax.dtypes.canonicalize_dtype(array.dtype)) for name, array in batch.items()}

    def create(seed: Int[Array, ""] | int) -> TrainState:
        zeros = {name: jnp.zeros(*row) for name, row in rows.items()}  # XLA drops the computations on them
        rngs = {name: step_key(seed, 0, name) for name in ("params", "mask", "dropout")}
        variables = dict(pretrainer.init(rngs, zeros, 0, train=False))
        params = variables.pop("params")
        trainable, _ = optimizer.split(params)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.transform(nn.unbox(trainable)).init(trainable),
            model_state=variables,
            ema=None if ema is None else jax.tree.map(jnp.copy, params),
            guard=guard.fresh(spike, len(guard.marked(batch))),
        )

    return create


def with_params(state: TrainState, params: Params, model_state: dict[str, Any] | None = None) -> TrainState:
    """The state with other parameters (numpy or jax arrays, the same tree), laid out as its own; the EMA starts there,
    and a decay towards the initial parameters pulls there.

    model_state: Linen's other collections, likewise; None: they stay.

    Raises UserError where a shape or dtype differs.
    """

    def place(path: tuple[Any, ...], old: jax.Array, new: Any) -> jax.Array:
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{name} is {old.dtype}{list(old.shape)}, but {new.dtype}{list(new.shape)} was given.")
        return jax.device_put(new, old.sharding, may_alias=False)  # the step donates it, so it is copied

    placed, again = (jax.tree_util.tree_map_with_path(place, state.params, params) for _ in range(2))
    own = state.model_state
    if model_state is not None:
        own = jax.tree_util.tree_map_with_path(place, own, model_state)
    opt_state = begun_at(state.opt_state, params)
    average = None if state.ema is None else again
    return dataclasses.replace(state, params=placed, opt_state=opt_state, model_state=own, ema=average)


def make_train_step(
    pretrainer: nn.Module,
    optimizer: Optimizer,
    *,
    seed: int,
    total_steps: int,
    ema: float | None = None,
    spike: guard.Spike | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Makes `train_step(state, batch) -> (state, metrics)`, a pure function.

    Where the loss or the gradient's norm is not finite, or the loss is a `spike`, parameters, optimiser state, model
    state and EMA keep their values, and `guard` counts it; `step`, and so the learning rate, goes on.

    `ema`: share of the moving average that stays at each step (0.999), None for no average; teachers' views are encoded
    by it, as it is before the step. `spike`: None for no such
    rule.

    Metrics (fp32 scalars, on the device): `loss`, `lr`; `grad_norm` (before clipping), `update_norm` (of the change
    that was made) and `param_norm` (after it), each of all and, behind a slash, by tower and objective
    (`grad_norm/towers_image`); `guard/skipped` (so far), `guard/in_a_row` and, with a rule, `guard/spikes`; where the
    batch has `id`, `batch_hash` (see there), where it marks bad examples, their counts
    (`guard.count_bad_examples`), and where it has waveforms, `guard.clipped`; the pretrainer's own.
    """

    fresh = None if ema is None else 1 - ema
    balance = getattr(pretrainer, "balance", None)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trainable, frozen = optimizer.split(state.params)
        rngs = {name: step_key(seed, state.step, name) for name in ("mask", "dropout")}
        still = tuple(name for name in state.params if name not in trainable)
        _check_statistics(state.model_state, still, getattr(pretrainer, "microbatches", 1))
        average: dict[str, Any] = (
            {EMA: state.ema} if teaches(getattr(pretrainer, "objectives", {})) and ema is not None else {}
        )

        def loss_of(trainable: Params) -> tuple[Array, tuple[Metrics, dict[str, Any]]]:
            (loss, metrics), model_state = pretrainer.apply(
                {"params": merge_params(trainable, frozen), **average, **state.model_state},
                batch,
                state.step,
                train=True,
                still=still,
                rngs=rngs,
                mutable=list(state.model_state),
            )
            return loss, (metrics, dict(model_state))

        with nn.logical_axis_rules(ACTIVATION_RULES):
            if isinstance(balance, ByGradient):
                (loss, metrics, model_state), losses, each = _each_gradient(pretrainer, loss_of, trainable, state.step)
                own = model_state.get(COLLECTION, {}).get("balance", {})
                gradient, own = balance.combined(each, losses, own, step_key(seed, state.step, "balance"))
                model_state = model_state | ({COLLECTION: {"balance": own}} if own else {})
            else:
                (loss, (metrics, model_state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        grad_norms = _norms("grad_norm", gradient)
        good, counts = guard.judge(state.guard, loss, grad_norms["grad_norm"], spike)
        counts, bad = guard.count_bad_examples(counts, batch, state.step)

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        lr = optimizer.learning_rate(state.step, total_steps)
        update, opt_state = optimizer.transform(trainable).update(gradient, state.opt_state, trainable)
        update = jax.tree.map(lambda u: jnp.where(good, -lr * u, 0), update)
        params = merge_params(jax.tree.map(jnp.add, trainable, update), frozen)
        moved = state.ema
        if fresh is not None:  # in this form frozen parameters stay the same, to the bit
            moved = jax.tree.map(lambda a, p: a + fresh * (p - a), state.ema, params)
        metrics |= bad | guard.clipped(batch) | {"loss": loss, "lr": lr}
        metrics |= {f"guard/{name}": counts[name] for name in ("skipped", "in_a_row", "spikes") if name in counts}
        if "id" in batch:
            metrics["batch_hash"] = batch_hash(batch["id"], batch["index"])
        metrics |= grad_norms | _norms("update_norm", update) | _norms("param_norm", params)
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=keep(opt_state, state.opt_state),
            model_state=keep(model_state, state.model_state),
            ema=keep(moved, state.ema),
            guard=counts,
        )
        return state, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    return train_step


def _each_gradient(
    pretrainer: Any,
    loss_of: Callable[[Params], tuple[Array, tuple[Metrics, dict[str, Any]]]],
    trainable: Params,
    step: Int[Array, ""],
) -> tuple[tuple[Array, Metrics, dict[str, Any]], Float[Array, " t"], Params]:
    """The loss, metrics and model state; the objectives' weighted losses; and the gradient of each, leaves `[T, ...]`:
    one forward pass, and a backward pass for each, one after the other.
    """

    def losses_of(trainable: Params) -> tuple[Array, Any]:
        loss, (metrics, model_state) = loss_of(trainable)
        return jnp.stack(list(pretrainer.weighted(metrics, step).values())), (loss, metrics, model_state)

    losses, back, found = jax.vjp(losses_of, trainable, has_aux=True)
    each = jax.lax.map(lambda one: back(one)[0], jnp.eye(len(losses), dtype=losses.dtype))
    return found, losses, each


def batch_hash(id: UInt[Array, "b 2"], index: UInt[Array, " b"]) -> UInt[Array, ""]:
    """A 24-bit hash of which examples are in which rows: the same however the batch is cut up, exact in fp32.

    A batch of other examples, or of the same ones in another order, has another hash but for one time in 2^24. The
    words are mixed as in MurmurHash3 (Appleby 2011), and summed over the rows.
    """
    word = index * np.uint32(0x9E3779B1) + np.uint32(1)
    for part in (id[:, 0], id[:, 1]):
        word = (word ^ part) * np.uint32(0x85EBCA6B)
        word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
        word ^= word >> 16
    return jnp.sum(word, dtype=jnp.uint32) & np.uint32(0xFFFFFF)


def compile_train_step(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]], state: TrainState, mesh: jax.sharding.Mesh
) -> Any:
    """Compiles `train_step` under jit: the state (donated) keeps the layout of `state`, batches come over `data` and
    `fsdp`, metrics are whole on every device. `state` may be an `abstract_state`. Compiles when first called, or by
    `.lower(state, batch).compile()`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _check_statistics(model_state: dict[str, Any], still: tuple[str, ...], microbatches: int) -> None:
    """Raises UserError where batch statistics would depend on how the batch is cut up."""
    moving = sorted(set(model_state.get("batch_stats", {})) - set(still))
    if moving and microbatches > 1:
        raise UserError(
            f"microbatches={microbatches}, but {', '.join(moving)} have batch statistics, which would be those of a "
            "part of the batch: set microbatches=1, or freeze them (optimizer.frozen)."
        )


def _norms(name: str, tree: Params) -> Metrics:
    """The l2 norm of a tree, and of each of its top-level parts."""
    squares = {part: optax.tree.norm(leaves, squared=True) for part, leaves in tree.items()}
    return {name: jnp.sqrt(sum(squares.values()))} | {f"{name}/{p}": jnp.sqrt(s) for p, s in squares.items()}
