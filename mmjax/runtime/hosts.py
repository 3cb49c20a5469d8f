"""Joins several hosts (processes) into one run, says what each reads, and makes all agree on decisions.

The only file that knows how many hosts there are. Every host runs the same program: all of them compute and save, in
the same order; host 0 alone writes files and prints. A decision that one host could take differently from another (is
the folder there? has somebody pressed Ctrl-C?) is taken together; otherwise one of them would wait for ever.
"""

import base64
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # the service that host 0 runs has no public name
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.runtime import launch
from mmjax.runtime.mesh import batch_sharding, replicated

T = TypeVar("T")

CONNECTING = 300  # seconds that a host waits for the others to start: the machines of a cluster don't start together
PATIENCE = 15  # seconds of waiting for the others, after which a host reports that it waits
HEARTBEAT = 30  # seconds without a sign of life, after which a host counts as dead and the others end ...
HEARTBEAT_VARIABLE = "MMJAX_HEARTBEAT"  # ... unless this variable says how many
LEAVING = 30  # seconds that a host which ends waits for the others to end, too
LINGER = 0.2  # seconds that host 0 goes on serving once all others have disconnected
PIECE = 2**24  # bytes that hosts exchange at once: every device holds that many of each host


def host() -> tuple[int, int]:
    """The index of this process, and the number of processes."""
    return jax.process_index(), jax.process_count()


def leads() -> bool:
    """True on host 0, which alone writes and prints."""
    return jax.process_index() == 0


def hosts_of(devices: Sequence[Any]) -> int:
    """The number of hosts that the devices belong to (they may be those of a pod that isn't there)."""
    return len({device.process_index for device in devices})


def join() -> None:
    """Makes this process one of the run's, where several are announced (`launch.announced`); else does nothing.

    Call it before anything touches a device. A host that dies later takes the others with it, within a minute.
    Where others don't come, jax ends the process after CONNECTING seconds (SIGABRT, no exception), which is announced
    before.

    Raises:
        UserError: a setting is invalid, or this is a pod whose hosts nothing announced.
    """
    heartbeat = _heartbeat()
    if not jax.distributed.is_initialized() and (found := launch.announced()) is not None:
        told = (
            f"still waiting for the others as {found}: do all of them run, and can they reach that address? "
            f"This process ends after {CONNECTING} s."
        )
        waiting = threading.Timer(PATIENCE, lambda: print(told, file=sys.stderr, flush=True))
        waiting.daemon = True
        waiting.start()
        try:
            jax.distributed.initialize(
                coordinator_address=found.address,
                num_processes=found.count,
                process_id=found.index,
                cluster_detection_method=None if found.detect else "deactivate",
                initialization_timeout=CONNECTING,
                heartbeat_timeout_seconds=heartbeat,
                shutdown_timeout_seconds=LEAVING,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{found} could not be joined: {error}") from error
        finally:
            waiting.cancel()
        _leave_sigterm_as_it_was()
        _serve_to_the_last()
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"jax sees {jax.process_count()} processes, but nothing announced them: set {launch.ADDRESS}=HOST:PORT (of "
            f"process 0), {launch.COUNT}={jax.process_count()} and {launch.INDEX} on each of them"
        )


def _heartbeat() -> int:
    text = os.environ.get(HEARTBEAT_VARIABLE, str(HEARTBEAT))
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"{HEARTBEAT_VARIABLE}={text!r} must be a whole number of seconds, at least 2")
    return int(text)


def _leave_sigterm_as_it_was() -> None:
    """Restores the handler of SIGTERM, which jax replaces by one that ignores it: a run that isn't training yet must
    end by it.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


class _Lingering:
    """The service that host 0 runs for all; stops LINGER seconds after it is told to."""

    def __init__(self, service: Any):
        self._service = service

    def shutdown(self) -> None:
        """Waits LINGER seconds, and stops the service."""
        time.sleep(LINGER)
        self._service.shutdown()


def _serve_to_the_last() -> None:
    """Delays the stop of host 0's service: jax stops it as soon as host 0 has disconnected, which on a busy machine is
    before the others have.

    gRPC then aborts the process ("Check failed: queue.Pop() == nullptr"): a run that is done would look like one that
    failed, and its supervisor would start it again.
    """
    if distributed.global_state.service is not None:
        distributed.global_state.service = _Lingering(distributed.global_state.service)


def reader(mesh: jax.sharding.Mesh, batch_size: int, process: int | None = None) -> tuple[int, int]:
    """The part of each global batch that a process (default: this one) reads: (index, count), for `data.pipeline`.

    It follows from the place of its devices in the mesh: hosts that share the same rows (`tensor` spans them) read the
    same part. If each host's rows are contiguous, `mesh.put` gives the single-host batch. If not (the mesh of a TPU's
    torus orders devices in its own way), its rows are permuted, equally at every step, and `index` identifies them:
    keys are folded with it, and losses don't depend on the order.

    Raises:
        UserError: some hosts share a part of their rows only.
    """
    process = jax.process_index() if process is None else process
    held: dict[int, set[int]] = {}
    for device, (rows, *_) in batch_sharding(mesh).devices_indices_map((batch_size,)).items():
        held.setdefault(device.process_index, set()).add(rows.start or 0)  # all of one size: the first row tells
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if len({row for rows in parts for row in rows}) != len(parts) * len(parts[0]):
        local = mesh.size // len(held)
        fits = [n for n in range(1, mesh.size + 1) if mesh.size % n == 0 and (local % n == 0 or n % local == 0)]
        raise UserError(
            f"Mesh: tensor={mesh.shape['tensor']} over {len(held)} hosts of {local} devices: hosts would hold rows of "
            f"the batch that are partly the same. tensor can be {', '.join(map(str, fits))}: what divides a host's "
            "devices, or whole hosts"
        )
    return parts.index(tuple(sorted(held[process]))), len(parts)


def gathered(value: Any) -> list[Any]:
    """Every host's `value`, by the host's index: plain data (JSON's types, bytes, numpy arrays).

    All hosts must call it. It waits for the slowest.
    """
    if jax.process_count() == 1:
        return [value]
    mine = np.frombuffer(encode(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.uint32(len(mine))).tolist()
    pieces = []
    for start in range(0, max(lengths), PIECE):
        size = min(PIECE, 2 ** (max(lengths) - start - 1).bit_length())  # few sizes: each one is compiled
        piece = np.zeros(size, np.uint8)
        part = mine[start : start + size]
        piece[: len(part)] = part
        pieces.append(multihost_utils.process_allgather(piece))
    texts = np.concatenate(pieces, axis=1)
    return [decode(text[:length].tobytes()) for text, length in zip(texts, lengths, strict=True)]


def together(function: Callable[[], T]) -> T:
    """Returns the value of `function` on this host; where it fails on any host, it fails on all of them.

    Raises:
        Exception: `function` raised it here. UserError: `function` raised an error on another host.
    """
    if jax.process_count() == 1:
        return function()
    value, error = None, None
    try:
        value = function()
    except Exception as caught:
        error = caught
    said = None if error is None else str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    failed = {index: text for index, text in enumerate(gathered(said)) if text is not None}
    if error is not None:
        raise error
    for index, text in failed.items():
        raise UserError(f"host {index} of {jax.process_count()}: {text}")
    return value  # type: ignore[return-value]


def first(function: Callable[[], T]) -> T:
    """Runs `function` on host 0 alone and returns its value on all hosts: plain data, as in `gathered`. Fails as
    `together`.
    """
    if jax.process_count() == 1:
        return function()
    return gathered(together(function if leads() else lambda: None))[0]


def wait() -> None:
    """Blocks until all hosts have called it."""
    gathered(None)


class Largest:
    """The largest number over all hosts: of this call with one host, of the call before with several.

    It all-reduces one int a step without synchronising with the device: every call returns the result of the call
    before, the same on all hosts.
    """

    def __init__(self, mesh: jax.sharding.Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._reduce = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._before: jax.Array | None = None

    def __call__(self, number: int) -> int:
        if jax.process_count() == 1:
            return number
        mine = np.full(1, number, np.int32)
        shape = (self._sharding.mesh.size,)
        spoken = jax.make_array_from_callback(shape, self._sharding, lambda _: mine)
        before, self._before = self._before, self._reduce(spoken)
        return 0 if before is None else int(before)


class Total(Generic[T]):
    """Applies `finish` to the sum of all hosts' integers (arrays of one shape), without waiting for the others.

    With several hosts it is computed on the devices, and all must call it at once.
    """

    def __init__(self, mesh: jax.sharding.Mesh, finish: Callable[[Any], T]):
        """finish: takes arrays of numpy and of jax alike."""
        self._sharding, self._finish = NamedSharding(mesh, PartitionSpec(mesh.axis_names)), finish
        each = mesh.size // jax.process_count()  # devices of a host, all of which hold its numbers
        self._reduce = jax.jit(lambda parts: finish(jnp.sum(parts, 0) // each), out_shardings=replicated(mesh))

    def __call__(self, numbers: np.ndarray) -> T:
        if jax.process_count() == 1:
            return self._finish(numbers)
        shape = (self._sharding.mesh.size, *numbers.shape)
        return self._reduce(jax.make_array_from_callback(shape, self._sharding, lambda _: numbers[None]))


def whole(tree: Any) -> Any:
    """Global arrays as numpy arrays, whole on every host."""
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """Numpy arrays, the same on all hosts, as global arrays."""

    def place(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree)


def encode(value: Any) -> bytes:
    """Plain data as JSON, with bytes and arrays tagged; decoding it runs no code."""
    return json.dumps(value, default=_tagged).encode()


def decode(text: bytes) -> Any:
    """The value that `encode` got; tuples come back as lists."""
    return json.loads(text, object_hook=_untagged)


def _tagged(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"@bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"@array": [value.dtype.str, value.shape, base64.b64encode(value.tobytes()).decode()]}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain data that hosts could exchange")


def _untagged(value: dict[str, Any]) -> Any:
    if value.keys() == {"@bytes"}:
        return base64.b64decode(value["@bytes"])
    if value.keys() == {"@array"}:
        dtype, shape, content = value["@array"]
        return np.frombuffer(base64.b64decode(content), dtype).reshape(shape)
    return value
