"""Combines the losses of several objectives into one: by learnt weights, in turns, or by their gradients.

A balance is a field of the experiment, `balance=Uncertainty()`. Each loss is multiplied by its `weights` first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmjax.errors import UserError, unknown

COLLECTION = "balance"  # of Linen's variables: the state of a balance that isn't learnt by gradient
SHARED = r"^(towers|fusions)_"

LossByName = Mapping[str, Float[Array, ""]]


class Combined(NamedTuple):
    """The combination of the objectives' gradients: the gradient, and the balance's next variables."""

    gradient: dict[str, Any]
    variables: dict[str, Array]


@runtime_checkable
class LossBalance(Protocol):
    """The contract of a Linen module that combines losses."""

    def __call__(self, losses: LossByName, step: int | Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss of a step, and each objective's `weight` in it, by name."""
        ...

    def check_objectives(self, names: Sequence[str]) -> None:
        """Raises UserError where the objectives of these names can't be balanced so."""
        ...


@runtime_checkable
class ByGradient(LossBalance, Protocol):
    """The further contract of a balance that needs the gradient of each objective by itself."""

    def combined(
        self, each: dict[str, Any], losses: Float[Array, " t"], variables: dict[str, Array], key: PRNGKeyArray
    ) -> Combined:
        """Combines the gradients.

        each: gradients of the T objectives, each leaf `[T, ...]`; losses: theirs. variables: the module's own. key: the
        step's, for random choices.
        """
        ...


class Uncertainty(nn.Module):
    """Learns how much each loss counts, by the uncertainty of its task (Kendall et al. 2018, arXiv:1705.07115): the sum
    of `exp(-s) loss / 2 + s / 2`, with a log-variance s for each objective; of a cross-entropy `exp(-s) loss + s / 2`.

    The log-variances are parameters, `balance/log_variance_<objective>`. At its best `exp(s)` is the loss, or twice a
    cross-entropy; the whole may fall below 0. A batch in which an objective has no example has a loss of 0 there, which
    lowers its s.

    Attributes:
        cross_entropies: the objectives whose loss is one.
        initial: the first s. 0: losses count by a half, or one.
    """

    cross_entropies: tuple[str, ...] = ()
    initial: float = 0.0

    def check_objectives(self, names: Sequence[str]) -> None:
        """Raises UserError for a name that is no objective."""
        _check_names("balance.cross_entropies", self.cross_entropies, names)

    @nn.compact
    def __call__(self, losses: LossByName, step: int | Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        total, weights = jnp.zeros(()), {}
        for name, loss in losses.items():
            s = self.param(f"log_variance_{name}", nn.initializers.constant(self.initial), (), jnp.float32)
            weights[name] = jnp.exp(-s) * (1.0 if name in self.cross_entropies else 0.5)
            total += weights[name] * loss + s / 2
        return total, weights


class Alternate(nn.Module):
    """Trains the objectives in turns: a pure function of the step, so a run that goes on is in the same turn.

    All losses are computed in every step, and logged; those out of turn have no weight. The optimiser's moments and
    decay go on for all parameters.

    Attributes:
        steps: the number of steps of each turn by objective, in this order: {"contrastive": 3, "masked": 1}. Others are
            in all turns.
    """

    steps: Mapping[str, int]

    def check_objectives(self, names: Sequence[str]) -> None:
        """Raises UserError where there are fewer than two turns, an empty one, or a name that is no objective."""
        if len(self.steps) < 2 or any(type(count) is not int or count < 1 for count in self.steps.values()):
            raise UserError(
                f"balance.steps={dict(self.steps)}: name two objectives or more, with a whole number of steps from 1 on"
            )
        _check_names("balance.steps", self.steps, names)

    @nn.compact
    def __call__(self, losses: LossByName, step: int | Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        place, begin, weights = jnp.asarray(step) % sum(self.steps.values()), 0, {}
        for name, count in self.steps.items():
            weights[name] = ((begin <= place) & (place < begin + count)).astype(jnp.float32)
            begin += count
        weights = {name: weights.get(name, jnp.ones(())) for name in losses}
        return sum((weights[name] * loss for name, loss in losses.items()), jnp.zeros(())), weights


class PCGrad(nn.Module):
    """Takes conflicts out of the objectives' gradients (Yu et al. 2020, arXiv:2001.06782): where the gradient of one
    has a negative product with that of another, its part along the other is taken away, for each of the others in an
    order that is drawn by the step's key; then they are added.

    A step has one forward pass and a backward pass for each objective, and holds a gradient of each.

    Attributes:
        shared: an expression of the parameters in which gradients are compared; elsewhere they are added.
    """

    shared: str = SHARED

    def check_objectives(self, names: Sequence[str]) -> None:
        """Raises UserError where there are fewer than two objectives, or `shared` is no expression."""
        _check_gradients(self, names)

    @nn.compact
    def __call__(self, losses: LossByName, step: int | Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return sum(losses.values(), jnp.zeros(())), {name: jnp.ones(()) for name in losses}

    def combined(
        self, each: dict[str, Any], losses: Float[Array, " t"], variables: dict[str, Array], key: PRNGKeyArray
    ) -> Combined:
        """See `ByGradient`. Raises UserError where `shared` matches no parameter."""
        parts = projections(gram(_shared(self, each)), key).sum(axis=0)
        return Combined(_added(each, parts, self.shared), variables)


class GradNorm(nn.Module):
    """Weighs the losses so that their gradients have norms by how fast each falls (Chen et al. 2018, arXiv:1711.02257).

    With the norm `G_i` of the weighted gradient of objective i in the shared parameters, and `r_i` the loss as a share
    of its first one, over the mean of these shares, the weights learn (Adam) to make `sum |G_i - mean(G) r_i^alpha|`
    small, where the second term has no gradient. The T weights are `T softmax(logits)`: so they are positive and add up
    to T, for which the paper renormalises them. They start at 1, and are used from the next step on. Losses must be
    positive. Logits, moments and first losses are part of the state (`model_state`): a run that goes on has the same.

    A step has one forward pass and a backward pass for each objective, and holds a gradient of each.

    Attributes:
        alpha: 0: all gradients of one norm; higher: slower objectives are pulled more (1.5 in the paper, 0.12 for
            tasks that are much alike).
        lr: of the logits.
        shared: an expression of the parameters whose gradients are measured; in the paper the last shared layer.
    """

    alpha: float = 1.5
    lr: float = 0.025
    shared: str = SHARED

    def check_objectives(self, names: Sequence[str]) -> None:
        """Raises UserError where a number is out of its range, there are fewer than two objectives, or `shared` is no
        expression."""
        if self.alpha < 0 or not self.lr > 0:
            raise UserError(f"balance.alpha={self.alpha} must be at least 0, and balance.lr={self.lr} above 0")
        _check_gradients(self, names)

    @nn.compact
    def __call__(self, losses: LossByName, step: int | Int[Array, ""]) -> tuple[Float[Array, ""], dict[str, Array]]:
        count = len(losses)
        if self.is_initializing():
            for name in ("logits", "first", "mean", "variance"):
                self.variable(COLLECTION, name, jnp.zeros, (count,))
            self.variable(COLLECTION, "seen", jnp.zeros, (), jnp.int32)
        logits = self.get_variable(COLLECTION, "logits", jnp.zeros(count))  # an exported model has no such state
        weights = dict(zip(losses, count * jax.nn.softmax(logits), strict=True))
        return sum((weights[name] * loss for name, loss in losses.items()), jnp.zeros(())), weights

    def combined(
        self, each: dict[str, Any], losses: Float[Array, " t"], variables: dict[str, Array], key: PRNGKeyArray
    ) -> Combined:
        """See `ByGradient`. Raises UserError where `shared` matches no parameter."""
        del key
        count, logits, seen = len(losses), variables["logits"], variables["seen"]
        norms = jnp.sqrt(jnp.diagonal(gram(_shared(self, each))))
        first = jnp.where(seen > 0, variables["first"], losses)
        ratio = jnp.maximum(losses, 0) / jnp.maximum(first, jnp.finfo(first.dtype).tiny)
        rate = ratio / jnp.maximum(ratio.mean(), jnp.finfo(first.dtype).tiny)

        def away(logits: Float[Array, " t"]) -> Float[Array, ""]:
            weighted = count * jax.nn.softmax(logits) * norms
            return jnp.sum(jnp.abs(weighted - jax.lax.stop_gradient(weighted.mean() * rate**self.alpha)))

        adam: Any = optax.adam(self.lr)
        before: Any = optax.ScaleByAdamState(seen, variables["mean"], variables["variance"])
        update, (after, *_) = adam.update(jax.grad(away)(logits), (before, *adam.init(logits)[1:]))
        now = {"logits": logits + update, "first": first, "mean": after.mu, "variance": after.nu, "seen": after.count}
        return Combined(_added(each, count * jax.nn.softmax(logits)), now)


def gram(each: Iterable[Float[Array, "t *shape"]]) -> Float[Array, "t t"]:
    """The products of T gradients, from their leaves."""

    def of(leaf: Float[Array, "t *shape"]) -> Float[Array, "t t"]:
        axes = tuple(range(1, leaf.ndim))
        return jnp.tensordot(leaf, leaf, axes=(axes, axes), precision=jax.lax.Precision.HIGHEST)

    return sum((of(leaf) for leaf in each), jnp.zeros(()))  # pyright: ignore[reportReturnType]


def projections(products: Float[Array, "t t"], key: PRNGKeyArray) -> Float[Array, "t t"]:
    """The projected gradients of `PCGrad`, each as a sum of the gradients: row i has the factor of each in it."""
    count = len(products)
    tiny = jnp.finfo(products.dtype).tiny

    def project(own: Int[Array, ""], key: PRNGKeyArray) -> Float[Array, " t"]:
        factors = jax.nn.one_hot(own, count, dtype=products.dtype)
        order = jax.random.permutation(key, count)
        for other in order:
            product = factors @ products[:, other]
            conflict = (other != own) & (product < 0)
            part = jnp.where(conflict, product / jnp.maximum(products[other, other], tiny), 0)
            factors -= part * jax.nn.one_hot(other, count, dtype=products.dtype)
        return factors

    return jax.vmap(project)(jnp.arange(count), jax.random.split(key, count))


def _shared(balance: Any, each: dict[str, Any]) -> list[Float[Array, "t ..."]]:
    """The leaves of the shared parameters' gradients."""
    flat: dict[str, Any] = flatten_dict(each, sep="/")
    found = [leaf for path, leaf in flat.items() if re.search(balance.shared, path)]
    if not found:
        raise UserError(
            f"{type(balance).__name__}: shared={balance.shared!r} matches no parameter that trains; they are under "
            f"{', '.join(sorted(each))}"
        )
    return found


def _added(each: dict[str, Any], factors: Float[Array, " t"], only: str | None = None) -> dict[str, Any]:
    """The sum of the T gradients, times their factors; in parameters that `only` doesn't match, without these."""
    flat: dict[str, Any] = flatten_dict(each, sep="/")
    found = {
        path: jnp.tensordot(factors, leaf, axes=1, precision=jax.lax.Precision.HIGHEST)
        if only is None or re.search(only, path)
        else leaf.sum(axis=0)
        for path, leaf in flat.items()
    }
    return unflatten_dict(found, sep="/")


def _check_names(field: str, given: Iterable[str], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            raise UserError(unknown(field, name, names, "objectives"))


def _check_gradients(balance: Any, names: Sequence[str]) -> None:
    if len(names) < 2:
        raise UserError(
            f"balance={type(balance).__name__}() compares the gradients of objectives, and there is "
            f"{', '.join(names) or 'none'} alone: leave it out"
        )
    try:
        re.compile(balance.shared)
    except re.error as error:
        raise UserError(f"balance.shared={balance.shared!r} is no regular expression: {error}") from None
