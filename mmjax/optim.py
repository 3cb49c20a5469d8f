"""The optimiser: AdamW, its schedule, and what is decayed, frozen or scaled, by the path of a parameter."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from mmjax.errors import UserError, nearest

Params = dict[str, Any]  # nested, as Linen gives them; the leaves are arrays

# What usual practice leaves undecayed: gains and offsets, and the tokens and positions that are added to others
# (open_clip and big_vision; a decayed logit scale would be pulled to a temperature of 1).
NO_DECAY = (
    r"(^|/)(bias|scale|log_scale)$",
    r"(^|/)(cls|mask|position|probe)$",
)


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with warm-up and a schedule.

    Regular expressions are searched for (`re.search`) in paths like `towers_image/blocks/attention/query/kernel`.

    Attributes:
        peak_lr: learning rate at the end of the warm-up.
        warmup_steps: steps of linear warm-up; step s has (s+1)/warmup_steps of the peak, so that no step is lost.
        weight_decay: decoupled; a step shrinks a decayed parameter by lr * weight_decay, as in optax and torch.
        b1, b2, eps: of Adam.
        schedule: after the warm-up, "cosine" down to `end_lr` at the last step, or "constant".
        end_lr: where the cosine ends.
        clip_norm: the gradient is scaled down to this global norm (over what trains); None: never.
        no_decay: expressions of what is not decayed, besides everything with fewer than two dimensions (a scanned
            stack has one more in front: there only the name tells a bias from a kernel).
        frozen: expressions of what doesn't train at all; the gradient isn't taken by it and it has no moments.
        scale: expression -> factor of the learning rate (the decay's too); where several match, they multiply.

    Raises UserError where a number can't be.
    """

    peak_lr: float
    warmup_steps: int = 0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    schedule: Literal["cosine", "constant"] = "cosine"
    end_lr: float = 0.0
    clip_norm: float | None = 1.0
    no_decay: tuple[str, ...] = NO_DECAY
    frozen: tuple[str, ...] = ()
    scale: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("peak_lr", "clip_norm"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"AdamW: {name}={value} must be above 0.")
        for name in ("warmup_steps", "weight_decay", "eps", "end_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"AdamW: {name}={getattr(self, name)} must be at least 0.")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"AdamW: {name}={getattr(self, name)} must be at least 0 and below 1.")
        if self.schedule not in ("cosine", "constant"):
            raise UserError(f"AdamW: schedule={self.schedule!r} must be 'cosine' or 'constant'.")

    def learning_rate(self, step: Int[Array, ""] | int, total_steps: int) -> Float[Array, ""]:
        """The learning rate of a step (from 0) in a run of `total_steps`, fp32.

        Raises UserError where the warm-up is not shorter than the run.
        """
        if self.warmup_steps >= total_steps:
            raise UserError(f"AdamW: warmup_steps={self.warmup_steps} must be less than the run's {total_steps} steps.")
        if self.schedule == "cosine":
            decay = optax.cosine_decay_schedule(1.0, total_steps - self.warmup_steps, self.end_lr / self.peak_lr)
        else:
            decay = optax.constant_schedule(1.0)
        warmup = (step + 1) / max(self.warmup_steps, 1)
        share = jnp.where(step < self.warmup_steps, warmup, decay(jnp.maximum(step - self.warmup_steps, 0)))
        return jnp.asarray(self.peak_lr * share, jnp.float32)

    def transform(self, params: Params) -> optax.GradientTransformation:
        """Gradients -> what a learning rate of 1 would subtract, for the parameters that train.

        The learning rate is left to the caller, who knows the run's step: an optimiser's own count falls behind
        when an update is skipped. `params` gives paths and numbers of dimensions only.
        """
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        decayed = {path: jnp.ndim(leaf) >= 2 and not _matches(self.no_decay, path) for path, leaf in flat.items()}
        clip = optax.identity() if self.clip_norm is None else optax.clip_by_global_norm(self.clip_norm)
        parts = [clip, optax.scale_by_adam(self.b1, self.b2, self.eps)]
        if self.weight_decay:
            parts.append(optax.add_decayed_weights(self.weight_decay, unflatten_dict(decayed, sep="/")))
        if self.scale:
            parts.append(_scale_by(unflatten_dict({path: self._factor(path) for path in flat}, sep="/")))
        return optax.chain(*parts)

    def split(self, params: Params) -> tuple[Params, Params]:
        """What trains, and what is frozen: two nested dicts that `merge` puts together again.

        Raises UserError where an expression of this optimiser matches no parameter, or nothing is left to train.
        """
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        for name, expressions in (("frozen", self.frozen), ("scale", self.scale), ("no_decay", self.no_decay)):
            for expression in expressions:
                if expression not in NO_DECAY:  # those are for every model; not every model has positions
                    _check_matches(name, expression, flat)
        frozen = {path: leaf for path, leaf in flat.items() if _matches(self.frozen, path)}
        if len(frozen) == len(flat):
            raise UserError(f"AdamW: frozen={self.frozen} leaves no parameter to train.")
        trainable = {path: leaf for path, leaf in flat.items() if path not in frozen}
        return unflatten_dict(trainable, sep="/"), unflatten_dict(frozen, sep="/")

    def _factor(self, path: str) -> float:
        return math.prod(factor for expression, factor in self.scale.items() if re.search(expression, path))


def merge(trainable: Params, frozen: Params) -> Params:
    """The inverse of `AdamW.split`."""
    return unflatten_dict(flatten_dict(trainable) | flatten_dict(frozen))


def _matches(expressions: Iterable[str], path: str) -> bool:
    return any(re.search(expression, path) for expression in expressions)


def _check_matches(name: str, expression: str, paths: Iterable[str]) -> None:
    try:
        if any(re.search(expression, path) for path in paths):
            return
    except re.error as error:
        raise UserError(f"AdamW: {name} has {expression!r}, which is not a regular expression: {error}.") from None
    parts = [path.split("/") for path in paths]
    prefixes = ["/".join(part[:n]) for part in parts for n in range(1, len(part) + 1)]
    words = re.sub(r"[\^$()?*+.|\[\]{}\\]+", "", expression).strip("/")
    known = nearest(words, [*prefixes, *(word for part in parts for word in part)])
    known = known or f"; the parameters are under {', '.join(sorted({part[0] for part in parts}))}."
    raise UserError(f"AdamW: {name} has {expression!r}, which matches no parameter{known}")


def _scale_by(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda update, factor: update * factor, updates, factors))
