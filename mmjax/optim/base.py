"""The base of optimisers: it decides which parameters they decay, freeze or scale, by path."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from mmjax.errors import UserError, nearest, not_among
from mmjax.optim import schedules
from mmjax.optim.initial import decayed_to_initial
from mmjax.optim.schedules import ScheduleName

Params = dict[str, Any]  # nested, as Linen gives them; the leaves are arrays
DecayTarget = Literal["zero", "initial"]

# Parameters that are usually not decayed: gains and offsets, and the tokens and positions that are added to others
# (open_clip and big_vision; a decayed logit scale would be pulled to a temperature of 1).
NO_DECAY = (
    r"(^|/)(bias|scale|log_scale)$",
    r"(^|/)(cls|kind|mask|position|probe)$",
)


STACKED = "/blocks/"  # in the path of parameters that have a scanned stack's layers as their first axis
HEADS = (r"(^|/)(norm|projection|attention_pool)(/|$)",)  # the parts of a tower behind its blocks


@dataclass(frozen=True)
class Optimizer:
    """The base of optimisers: a schedule, and rules for decay, freezing and scaling by the path of a parameter.

    Regular expressions are searched for (`re.search`) in paths like `towers_image/blocks/attention/query/kernel`.

    Attributes:
        peak_lr: learning rate at the end of the warm-up.
        warmup_steps: steps of linear warm-up; step s has (s+1)/warmup_steps of the peak, so that no step is lost.
        weight_decay: decoupled; a step shrinks a decayed parameter by lr * weight_decay, as in optax and torch.
        schedule: after the warm-up "cosine" or "linear" down to `end_lr`, "constant", "rsqrt", or "steps"
            (`schedules.share`).
        end_lr: the learning rate at which the schedule, or the cooldown, ends: at the step after the run's last one
            (`schedules.share`).
        cooldown_steps: the last so many go down to `end_lr` in a straight line; for "constant" and "rsqrt".
        timescale: of "rsqrt", in steps.
        drops, drop: of "steps": at each of the steps `drops`, from 0, the rate is multiplied by `drop`.
        clip_norm: the gradient is scaled down to this global norm (over trained parameters); None: never.
        no_decay: expressions of parameters that are not decayed, besides those with fewer than two dimensions (a
            scanned stack has one more in front: there only the name tells a bias from a kernel).
        decay_towards: "zero"; or "initial", the parameters with which the run began (those that `init` loaded): a step
            adds `weight_decay * (p - p0)`, for fine-tuning that doesn't drift far (MERLOT Reserve: Zellers et al. 2022,
            arXiv:2201.02639). The optimiser's state then holds p0 besides, in fp32, 4 bytes for each decayed number,
            cut over devices as the parameters are.
        least_decayed: parameters with fewer numbers are not decayed; of a scanned stack, those of one layer count
            (MERLOT Reserve's fine-tuning: 4,097).
        frozen: expressions of parameters that don't train at all: no gradient is computed for these parameters and no
            optimiser state is kept.
        scale: expression -> factor of the learning rate (the decay's too); where several match, they multiply.
        layer_decay: expression -> factor g: of a tower with L blocks that it matches, block i (from 1) has g^(L+1-i) of
            the learning rate, parameters before the blocks have g^(L+1) of it, those behind them all of it (BEiT: Bao
            et al. 2021, arXiv:2106.08254; for fine-tuning).

    Raises UserError where a number is out of its range.
    """

    peak_lr: float
    warmup_steps: int = 0
    weight_decay: float = 0.0
    schedule: ScheduleName = "cosine"
    end_lr: float = 0.0
    cooldown_steps: int = 0
    timescale: int = 10_000
    clip_norm: float | None = 1.0
    no_decay: tuple[str, ...] = NO_DECAY
    decay_towards: DecayTarget = "zero"
    least_decayed: int = 1
    frozen: tuple[str, ...] = ()
    scale: dict[str, float] = field(default_factory=dict)
    layer_decay: dict[str, float] = field(default_factory=dict)
    drops: tuple[int, ...] = field(default=(), kw_only=True)
    drop: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("peak_lr", "clip_norm"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"{self._name}: {name}={value} must be above 0.")
        for name in ("warmup_steps", "weight_decay", "end_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"{self._name}: {name}={getattr(self, name)} must be at least 0.")
        if self.decay_towards not in get_args(DecayTarget):
            raise UserError(f"{self._name}: {not_among('decay_towards', self.decay_towards, get_args(DecayTarget))}.")
        if self.decay_towards == "initial" and not self.weight_decay:
            raise UserError(f"{self._name}: decay_towards='initial' needs a weight_decay above 0.")
        if self.least_decayed < 1:
            raise UserError(f"{self._name}: least_decayed={self.least_decayed} must be at least 1.")
        for expression, factor in self.layer_decay.items():
            if not 0 < factor <= 1:
                raise UserError(
                    f"{self._name}: layer_decay={{{expression!r}: {factor}}} must be above 0, and 1 at most."
                )
        schedules.check_schedule(self._name, self.schedule, self.cooldown_steps, self.timescale, self.drops, self.drop)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{self._name}: {name}={getattr(self, name)} must be at least 0 and below 1.")

    def learning_rate(self, step: Int[Array, ""] | int, total_steps: int) -> Float[Array, ""]:
        """The learning rate of a step (from 0) in a run of `total_steps`, fp32.

        Raises UserError where warm-up and cooldown don't fit into the run.
        """
        schedules.check_length(self._name, self.warmup_steps, self.cooldown_steps, total_steps)
        share = schedules.share(
            step,
            total_steps,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            cooldown_steps=self.cooldown_steps,
            timescale=self.timescale,
            end=self.end_lr / self.peak_lr,
            drops=self.drops,
            drop=self.drop,
        )
        return jnp.asarray(self.peak_lr * share, jnp.float32)

    def direction(self, params: Params) -> list[optax.GradientTransformation]:
        """Optax's transformations of the (clipped) gradient into the direction of descent."""
        raise NotImplementedError

    def after_decay(self, params: Params) -> list[optax.GradientTransformation]:
        """Optax's transformations of the direction with the decay added. Default: none."""
        del params
        return []

    def transform(self, params: Params) -> optax.GradientTransformation:
        """The transformation of gradients into the update for a learning rate of 1, to be subtracted, for the
        parameters that train.

        The learning rate is left to the caller, who knows the run's step: an optimiser's own count falls behind
        when an update is skipped. `params` gives paths and shapes only.
        """
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        decayed = unflatten_dict({path: self._decays(path, jnp.shape(leaf)) for path, leaf in flat.items()}, sep="/")
        clip = optax.identity() if self.clip_norm is None else optax.clip_by_global_norm(self.clip_norm)
        parts = [clip, *self.direction(params)]
        if self.weight_decay:
            towards = decayed_to_initial if self.decay_towards == "initial" else optax.add_decayed_weights
            parts.append(towards(self.weight_decay, decayed))
        parts += self.after_decay(params)
        if self.scale or self.layer_decay:
            depths = _depths(flat)
            factors = {path: self._factor(path) * self._layer_factor(path, leaf, depths) for path, leaf in flat.items()}
            parts.append(_scale_by(unflatten_dict(factors, sep="/")))
        return optax.chain(*parts)

    def split(self, params: Params) -> tuple[Params, Params]:
        """Splits the parameters into trained and frozen ones: two nested dicts, which `merge_params` joins again.

        Raises UserError where an expression of this optimiser matches no parameter, or nothing is left to train.
        """
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        for name in ("frozen", "scale", "layer_decay", "no_decay"):
            for expression in getattr(self, name):
                if expression not in NO_DECAY:  # NO_DECAY is for every model, and not every model has positions
                    _check_matches(f"{self._name}: {name}", expression, flat)
        frozen = {path: leaf for path, leaf in flat.items() if _matches(self.frozen, path)}
        if len(frozen) == len(flat):
            raise UserError(f"{self._name}: frozen={self.frozen} leaves no parameter to train.")
        trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
        return unflatten_dict(trainable, sep="/"), unflatten_dict(frozen, sep="/")

    def _decays(self, path: str, shape: tuple[int, ...]) -> bool:
        own = shape[1:] if STACKED in path else shape
        return len(shape) >= 2 and math.prod(own) >= self.least_decayed and not _matches(self.no_decay, path)

    def _factor(self, path: str) -> float:
        return math.prod(factor for expression, factor in self.scale.items() if re.search(expression, path))

    def _layer_factor(self, path: str, leaf: Any, depths: dict[str, int]) -> Any:
        """A number, or for a stack one for each layer, in an array that broadcasts against it."""
        decay = math.prod(factor for expression, factor in self.layer_decay.items() if re.search(expression, path))
        tower = path.partition("/")[0]
        if decay == 1 or tower not in depths or (STACKED not in path and _matches(HEADS, path)):
            return 1.0
        depth = depths[tower]
        if STACKED not in path:
            return decay ** (depth + 1)
        powers = np.float32(decay) ** np.arange(depth, 0, -1, dtype=np.float32)
        return powers.reshape(-1, *(1,) * (jnp.ndim(leaf) - 1))


def _depths(flat: dict[str, Any]) -> dict[str, int]:
    """The number of blocks of each tower, by the first part of its parameters' paths."""
    return {path.partition("/")[0]: jnp.shape(leaf)[0] for path, leaf in flat.items() if STACKED in path}


def merge_params(trainable: Params, frozen: Params) -> Params:
    """Joins the two dicts of `Optimizer.split`."""
    return unflatten_dict(flatten_dict(trainable) | flatten_dict(frozen))


def _matches(expressions: Iterable[str], path: str) -> bool:
    return any(re.search(expression, path) for expression in expressions)


def _check_matches(name: str, expression: str, paths: Iterable[str]) -> None:
    try:
        if any(re.search(expression, path) for path in paths):
            return
    except re.error as error:
        raise UserError(f"{name} has {expression!r}, which is not a regular expression: {error}.") from None
    parts = [path.split("/") for path in paths]
    prefixes = ["/".join(part[:n]) for part in parts for n in range(1, len(part) + 1)]
    words = re.sub(r"[\^$()?*+.|\[\]{}\\]+", "", expression).strip("/")
    known = nearest(words, [*prefixes, *(word for part in parts for word in part)])
    known = known or f"; the parameters are under {', '.join(sorted({part[0] for part in parts}))}."
    raise UserError(f"{name} has {expression!r}, which matches no parameter{known}")


def _scale_by(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, factors))
