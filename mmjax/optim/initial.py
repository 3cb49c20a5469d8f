"""Weight decay towards the parameters with which a run began, in place of zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree


class InitialWeights(NamedTuple):
    """The part of the optimiser's state that keeps them: fp32, of the decayed parameters alone."""

    initial: PyTree


def decayed_to_initial(weight_decay: float, decayed: PyTree) -> optax.GradientTransformation:
    """Adds `weight_decay * (p - p0)` to the direction, with p0 the parameters that `init` was given.

    decayed: a bool for each parameter, whether it is; a further copy is kept of these.
    """

    def init(params: PyTree) -> InitialWeights:
        return InitialWeights(jax.tree.map(lambda p: jnp.array(p, jnp.float32), params))

    def update(updates: PyTree, state: Any, params: Any = None) -> tuple[PyTree, Any]:
        def pulled(update: jax.Array, param: jax.Array, initial: jax.Array) -> jax.Array:
            return update + weight_decay * (param - initial)

        return jax.tree.map(pulled, updates, params, state.initial), state

    return optax.masked(optax.GradientTransformation(init, update), decayed)


def begun_at(opt_state: PyTree, params: dict[str, Any]) -> PyTree:
    """An optimiser's state in which the run began with `params` (numpy or jax arrays), laid out as before; nothing else
    changes, and nothing at all where no decay is towards them.
    """
    flat: dict[Any, Any] = flatten_dict(params)

    def begin(node: Any) -> Any:
        if not isinstance(node, InitialWeights):
            return node

        def place(path: tuple[Any, ...], old: jax.Array) -> jax.Array:
            new = flat[tuple(part.key for part in path)].astype(old.dtype)
            return jax.device_put(new, old.sharding, may_alias=False)  # the step donates it, so it is copied

        return InitialWeights(jax.tree_util.tree_map_with_path(place, node.initial))

    return jax.tree.map(begin, opt_state, is_leaf=lambda node: isinstance(node, InitialWeights))
