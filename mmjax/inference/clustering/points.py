"""Features on their way to the devices: looked through once, and placed over the mesh, in pieces of bounded size."""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float32, Int32

from mmjax.errors import UserError
from mmjax.runtime.mesh import BATCH_AXES

PIECE = 2**26  # bytes of features that are read at a time
BLOCK = 2**24  # numbers of the differences between features and centroids that a device holds at a time
DIGITS = 30  # binary digits of a feature's whole number; with its sign it fills an int32
SMALLEST, LARGEST = 1e-12, 1e12  # of the largest number of all features, whose squares are added
NAMED = 5  # rows in a message
_WIDEST = 100  # of the shifts, so that two to it and to its negative are float32


class Facts(NamedTuple):
    """Facts of features that are found by reading all of them.

    count, width: N and D. digest: of all numbers and the shape. bad: the rows that hold numbers that aren't finite.
    shifts: int32 [D], by which power of two the numbers of a dimension are multiplied to become whole numbers of at
    most `DIGITS` digits.
    """

    count: int
    width: int
    digest: str
    bad: Int32[np.ndarray, " bad"]
    shifts: Int32[np.ndarray, " d"]


class Points(NamedTuple):
    """Features over the mesh: rows lie over `data` and `fsdp`, those behind the last are padding.

    features: float32 [n, D]; a row that is left out is zeros. rows: int32 [n], a feature's number; -1 where it is
    padding or left out. shifts: as in `Facts`. block: rows that a device takes at a time, which divides its share.
    """

    features: Float32[jax.Array, "n d"]
    rows: Int32[jax.Array, " n"]
    shifts: Int32[np.ndarray, " d"]
    block: int
    mesh: jax.sharding.Mesh


def look_through(features: Any) -> Facts:
    """Reads all features `[N, D]`, an array or one that is mapped from a file.

    Raises UserError where they are no such array of floats, or are too small or too large to be squared.
    """
    shape, dtype = getattr(features, "shape", ()), getattr(features, "dtype", None)
    if len(shape) != 2 or dtype is None or dtype.kind != "f" or 0 in shape or shape[0] >= 2**31:
        raise UserError(
            f"features are an array of floats [N, D], a row each; these are {dtype}{list(shape)}"
            + (": reshape them, one row for each clip" if len(shape) > 2 else "")
        )
    digest = hashlib.blake2b(f"{shape}".encode(), digest_size=16)
    most, bad = np.zeros(shape[1], np.float32), []
    for start, piece in _pieces(features, 0, shape[0]):
        digest.update(piece.tobytes())
        finite = np.isfinite(piece).all(axis=1)
        bad.append(start + np.flatnonzero(~finite))
        most = np.maximum(most, np.abs(piece[finite]).max(axis=0, initial=0))
    if 0 < (largest := float(most.max())) < SMALLEST or largest > LARGEST:
        raise UserError(
            f"the largest of the features' numbers is {largest:.3g}, and squares of such numbers leave float32: scale "
            f"the features to between {SMALLEST:.0g} and {LARGEST:.0g}"
        )
    exponents = np.frexp(most)[1]  # all numbers are below 2**exponent
    shifts = np.where(most > 0, np.clip(DIGITS - exponents, -_WIDEST, _WIDEST), 0).astype(np.int32)
    return Facts(shape[0], shape[1], digest.hexdigest(), np.concatenate(bad).astype(np.int32), shifts)


def place(features: Any, facts: Facts, mesh: jax.sharding.Mesh, branching: int) -> Points:
    """Puts features on the devices. The host holds a piece at a time, a device its share and a piece."""
    # The block depends on the features alone: whatever the mesh is, a row is computed within an array of one shape.
    spread = 2 ** max(0, (facts.count // 64).bit_length())
    block = min(2**14, spread, max(8, 2 ** (BLOCK // (branching * facts.width)).bit_length() // 2))
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    share = -(-facts.count // (parts * block)) * block
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    held, numbers = [], []
    for device, index in sharding.addressable_devices_indices_map((parts * share,)).items():
        start = (index[0].start or 0) if index else 0
        buffer = jax.device_put(jnp.zeros((share, facts.width), jnp.float32), device)
        row = np.arange(start, start + share)
        row = np.where((row < facts.count) & ~np.isin(row, facts.bad), row, -1)
        for at, piece in _pieces(features, start, min(start + share, facts.count)):
            whole = np.where(row[at - start : at - start + len(piece), None] >= 0, piece, 0)
            buffer = _filled(buffer, jax.device_put(whole, device), at - start)
        held.append(buffer)
        numbers.append(jax.device_put(row.astype(np.int32), device))
    gathered = jax.make_array_from_single_device_arrays
    return Points(
        gathered((parts * share, facts.width), sharding, held),
        gathered((parts * share,), sharding, numbers),
        facts.shifts,
        block,
        mesh,
    )


def check_finite(facts: Facts, leave_out: bool) -> None:
    """Raises UserError where rows hold numbers that aren't finite, unless they are to be left out, or nothing stays."""
    if len(facts.bad) == facts.count:
        raise UserError(f"all {facts.count:,} features hold numbers that aren't finite")
    if len(facts.bad) and not leave_out:
        named = ", ".join(map(str, facts.bad[:NAMED])) + (", ..." if len(facts.bad) > NAMED else "")
        raise UserError(
            f"{len(facts.bad):,} of {facts.count:,} features hold numbers that aren't finite, rows {named}: mend them, "
            "or leave them out (--leave-out)"
        )


def _pieces(features: Any, start: int, stop: int) -> Any:
    """The rows from `start` to `stop` in float32, with the number of the first."""
    rows = max(1, PIECE // (4 * features.shape[1]))
    for at in range(start, stop, rows):
        yield at, np.ascontiguousarray(features[at : min(at + rows, stop)], np.float32)


def _put_in(buffer: jax.Array, piece: jax.Array, at: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice(buffer, piece, (at, 0))


_filled = jax.jit(_put_in, donate_argnums=0)
