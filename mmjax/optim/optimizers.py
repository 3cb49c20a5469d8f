"""The optimisers, made of optax's parts: AdamW, LAMB, Adafactor, Muon, and plain gradient descent."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from mmjax.errors import UserError
from mmjax.optim.base import STACKED, Optimizer, Params


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).

    b1, b2, eps: of Adam.  bias_correction: whether the moments are divided by 1 - b^t; BERT's optimiser (Devlin et al.
    2018, arXiv:1810.04805) leaves that out.  The other fields: `Optimizer`.
    """

    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    bias_correction: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("b1", "b2")
        if self.eps < 0:
            raise UserError(f"{self._name}: eps={self.eps} must be at least 0.")

    def direction(self, params: Params) -> list[optax.GradientTransformation]:
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps)
        return [adam if self.bias_correction else _uncorrected(adam, self.b1, self.b2, self.eps)]


@dataclass(frozen=True)
class Lamb(AdamW):
    """LAMB (You et al. 2019, arXiv:1904.00962): Adam's direction plus weight decay, rescaled to the parameter's norm.

    Each layer, so each block of a scanned stack, has a ratio of its own. A parameter that is zero, or whose
    direction is, has the ratio 1.
    """

    def after_decay(self, params: Params) -> list[optax.GradientTransformation]:
        return [_trust(params)]


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018, arXiv:1804.04235), in the variant for vision transformers (Zhai et al. 2021,
    arXiv:2106.04560): second moments by rows and columns, momentum in 16 bits, a learning rate of one's own.

    b1: of the momentum, bfloat16; 0: none.
    decay: the second moment's rate at step t is 1 - t^-decay, and `b2_cap` at most.
    clip_rms: a parameter's direction is scaled down to this root mean square; None: never.
    least_dim: matrices with a smaller side keep unfactored second moments.
    """

    b1: float = 0.9
    decay: float = 0.8
    b2_cap: float = 0.999
    clip_rms: float | None = 1.0
    least_dim: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("b1", "b2_cap")
        if self.decay <= 0 or (self.clip_rms is not None and self.clip_rms <= 0) or self.least_dim < 1:
            raise UserError(
                f"Adafactor: decay={self.decay} and clip_rms={self.clip_rms} must be above 0, and "
                f"least_dim={self.least_dim} at least 1."
            )

    def direction(self, params: Params) -> list[optax.GradientTransformation]:
        def rate(step: Any, decay: Any) -> Array:
            return jnp.minimum(1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -decay, self.b2_cap)

        factored = optax.scale_by_factored_rms(
            decay_rate=self.decay, min_dim_size_to_factor=self.least_dim, decay_rate_fn=rate
        )
        parts = [_unboxed(factored)]
        if self.clip_rms is not None:
            parts.append(optax.clip_by_block_rms(self.clip_rms))
        if self.b1:
            parts.append(optax.ema(self.b1, debias=False, accumulator_dtype=jnp.bfloat16))
        return parts


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024): orthogonalises the momentum of the blocks' matrices; uses AdamW for everything else.

    Each layer's query, key, value, output and MLP matrix is orthogonalised by itself. Directions have a root mean
    square of 0.2, Adam's usual one, so that learning rate and decay carry over from AdamW (Liu et al. 2025,
    arXiv:2502.16982).

    momentum: Nesterov's.  b1, b2, eps: of Adam, whose momentum is Nesterov's here too.
    """

    momentum: float = 0.95
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("momentum", "b1", "b2")
        if self.eps < 0:
            raise UserError(f"{self._name}: eps={self.eps} must be at least 0.")

    def direction(self, params: Params) -> list[optax.GradientTransformation]:
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        matrices = unflatten_dict({path: _matrix(path, jnp.ndim(leaf)) for path, leaf in flat.items()}, sep="/")
        muon = optax.contrib.muon(
            -1.0,  # optax's Muon subtracts; here the caller subtracts
            beta=self.momentum,
            adam_b1=self.b1,
            adam_b2=self.b2,
            eps=self.eps,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=0.2,
        )
        return [muon]


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent (Robbins & Monro 1951), without a momentum or with it (Polyak 1964): the direction is
    the gradient plus `momentum` times the direction before."""

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("momentum")

    def direction(self, params: Params) -> list[optax.GradientTransformation]:
        return [optax.trace(self.momentum)] if self.momentum else []


def _uncorrected(adam: optax.GradientTransformation, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's direction from uncorrected moments; the state has `adam`'s structure, so that a run can go on
    with either.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, state._replace(count=optax.safe_increment(state.count), mu=mu, nu=nu)

    return optax.GradientTransformation(adam.init, update)


def _matrix(path: str, dimensions: int) -> optax.contrib.MuonDimensionNumbers | None:
    """The axes of a block's kernel that are the rows and columns of its matrices; None where it has none."""
    if STACKED not in path or not path.endswith("/kernel"):
        return None
    if dimensions == 5:  # [layers, D, heads, parts, head_dim]: a matrix for each part
        return optax.contrib.MuonDimensionNumbers((1,), (2, 4))
    if dimensions == 4:  # [layers, heads, head_dim, D]
        return optax.contrib.MuonDimensionNumbers((1, 2), (3,))
    return optax.contrib.MuonDimensionNumbers((1,), (2,)) if dimensions == 3 else None


def _trust(params: Params) -> optax.GradientTransformation:
    """Optax's trust ratio, computed for each layer of a stack."""
    whole = optax.scale_by_trust_ratio()
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    stacked = unflatten_dict({path: STACKED in path for path in flat}, sep="/")

    def scaled(stack: bool, update: Array, param: Array) -> Any:
        def ratio(update: Array, param: Array) -> Any:
            return whole.update(update, optax.EmptyState(), param)[0]

        return (jax.vmap(ratio) if stack else ratio)(update, param)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(scaled, stacked, updates, params), state

    return optax.GradientTransformation(whole.init, update)


def _unboxed(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation without logical names for its state, whose dimensions aren't its parameters': it is replicated
    on every device, which costs little for statistics by rows and columns.
    """
    return optax.GradientTransformation(lambda params: transform.init(nn.unbox(params)), transform.update)
