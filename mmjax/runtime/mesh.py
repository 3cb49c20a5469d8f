"""Builds the device mesh, shards parameters and batches over it by rules, and puts arrays there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmjax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # `fsdp` cuts the batch too: it shards what `data` would replicate, not the work

# Logical axis of a parameter -> axis of the mesh (a name that isn't here is replicated). Over `tensor` Megatron's cut
# (Shoeybi et al. 2019, arXiv:1909.08053): heads, hidden units of the MLP, vocabulary; over `fsdp` the width (ZeRO-3).
RULES: dict[str, str] = {
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "vocab": "tensor",
    "joint": "tensor",
}


# The same for activations. The width stays whole: a batch that is cut over `fsdp` can't have it cut over `fsdp` too.
ACTIVATION_RULES: tuple[tuple[str, str | tuple[str, ...]], ...] = (
    ("batch", BATCH_AXES),
    ("mlp", "tensor"),
    ("heads", "tensor"),
)


@dataclass(frozen=True)
class Mesh:
    """The sizes of the mesh axes; -1 (at most once) takes the devices that the others leave.

    `data` replicates the parameters, `fsdp` shards them by rows of the batch, `tensor` shards the work of a layer.
    On several slices, which are joined by a slow network, `data` runs over the slices first, and then within each;
    `fsdp` and `tensor` stay within a slice. The losses are the same, so an experiment doesn't depend on it.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over `devices` (jax.Device; default: all of them, of all hosts).

        Raises UserError where the sizes don't fit the number of devices, or of slices; the message has sizes that do.
        """
        devices = jax.devices() if devices is None else list(devices)
        sizes = self.sizes(len(devices))
        types = (AxisType.Auto,) * len(AXES)  # with Explicit axes a patchify reshape of a sharded batch is refused
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        data, fsdp, tensor = sizes
        if data % slices:
            raise UserError(
                f"Mesh: data={data} on {slices} slices of {len(devices) // slices} devices. fsdp and tensor stay "
                f"within a slice, so that data must be a multiple of {slices}: fsdp*tensor={fsdp * tensor} can be "
                f"{_listed(_divisors(len(devices) // slices))}."
            )
        # An axis may be a part of a side of the pod (fsdp=8 of 16x16), which jax.make_mesh refuses on some pods.
        split = {"allow_split_physical_axes": True}
        if slices == 1:
            laid_out = mesh_utils.create_device_mesh(sizes, devices, **split)
        else:
            laid_out = mesh_utils.create_hybrid_device_mesh(
                (data // slices, fsdp, tensor), (slices, 1, 1), devices, **split
            )
        return jax.sharding.Mesh(laid_out, AXES, axis_types=types)

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The sizes of `data`, `fsdp`, `tensor` on so many devices, with the -1 filled in."""
        given = {axis: getattr(self, axis) for axis in AXES}
        for axis, size in given.items():
            if size != -1 and size < 1:
                raise UserError(f"Mesh: {axis}={size} must be at least 1, or -1 for the devices that the others leave.")
        free = [axis for axis, size in given.items() if size == -1]
        if len(free) > 1:
            raise UserError(f"Mesh: only one axis may be -1, but {' and '.join(free)} are.")
        fixed = math.prod(size for size in given.values() if size != -1)
        product = "*".join(axis for axis in AXES if axis not in free)
        if free and devices % fixed:
            raise UserError(
                f"Mesh: {devices} devices, {product}={fixed}, which does not divide them: no whole number is left for "
                f"{free[0]}. {product} can be {_listed(_divisors(devices))}."
            )
        if not free and fixed != devices:
            others = fixed // given["data"]
            advice = (
                f"data={devices // others} would do (or data=-1: the rest)"
                if devices % others == 0
                else f"fsdp*tensor={others} does not divide it, {_listed(_divisors(devices))} would"
            )
            raise UserError(f"Mesh: {devices} devices, {product}={fixed}. The product must be {devices}: {advice}.")
        data, fsdp, tensor = (devices // fixed if size == -1 else size for size in given.values())
        return data, fsdp, tensor


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _listed(numbers: list[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def check_batch(batch_size: int, mesh: jax.sharding.Mesh, microbatches: int = 1) -> None:
    """Raises UserError where the global batch can't be cut over the mesh, and over microbatches in each part.

    Every device holds the same number of rows of every microbatch: a microbatch on only some of the devices would leave
    the others idle.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    unit = parts * microbatches
    if batch_size < 1 or batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        reason = " * ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        reason += f" * microbatches={microbatches}" if microbatches > 1 else ""
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(f"batch_size={batch_size} is not divisible by {unit} ({reason}); nearest: {nearest}.")


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The sharding of a batch: rows over `data` and `fsdp`, every other dimension whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The sharding of an array of which every device has a whole copy."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract_state: Any, mesh: jax.sharding.Mesh) -> Any:
    """The sharding of every leaf, by the logical axis names that it carries.

    Takes a pytree of `ShapeDtypeStruct` in which parameters are boxed with their names, as Linen's `init` gives them
    (`nn.with_logical_partitioning`); trees that optax derives by `tree.map` carry the names too, so that moments are
    sharded as their parameters. Returns the tree without the boxes, of `NamedSharding`.
    """

    def sharding(leaf: Any) -> Any:
        if not isinstance(leaf, meta.Partitioned):
            return replicated(mesh)
        if not hasattr(leaf.value, "shape"):  # optax's mask: another transform has this parameter
            return leaf.value
        return NamedSharding(mesh, _spec(leaf.names, leaf.value.shape, mesh))

    return jax.tree.map(sharding, abstract_state, is_leaf=lambda x: isinstance(x, meta.Partitioned))


def _spec(names: tuple[str | None, ...], shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
    """The mesh axis of each dimension. A dimension that its axis doesn't divide is replicated along it (3 heads over
    tensor=2): memory is lost, not exactness, and jit would refuse an uneven input. An axis is used once in an array (a
    square matrix of embed by embed is cut by its first dimension).
    """
    axes: list[str | None] = []
    for name, size in zip(names, shape, strict=True):
        axis = RULES.get(name) if name else None
        fits = axis is not None and axis not in axes and size % mesh.shape[axis] == 0
        axes.append(axis if fits else None)
    return PartitionSpec(*axes)


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, rows over `data` and `fsdp`, of this process's rows of the global batch."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
