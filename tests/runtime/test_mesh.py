import multiprocessing
import os
import signal
import threading
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.errors import UserError
from mmjax.runtime.mesh import Mesh, check_batch, put, state_shardings
from mmjax.runtime.prefetch import StalledError, device_prefetch


def test_the_rest_of_the_devices_goes_to_the_free_axis():
    assert dict(Mesh().build().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(Mesh(data=2, fsdp=-1, tensor=2).build().shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(Mesh().build(jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(data=3, fsdp=2), r"8 devices, data\*fsdp\*tensor=6.*data=4 would do"),
        (Mesh(data=2, fsdp=3), r"fsdp\*tensor=3 does not divide it, 1, 2, 4 or 8 would"),
        (Mesh(fsdp=3), r"8 devices, fsdp\*tensor=3.*1, 2, 4 or 8"),
        (Mesh(data=16), r"8 devices, data\*fsdp\*tensor=16.*data=8 would do"),
        (Mesh(fsdp=-1), "only one axis may be -1, but data and fsdp are"),
        (Mesh(tensor=0), "tensor=0 must be at least 1"),
    ],
)
def test_a_mesh_that_does_not_fit_names_numbers_that_do(mesh, message):
    with pytest.raises(UserError, match=message):
        mesh.build()


def test_a_batch_that_does_not_divide_names_the_nearest():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    check_batch(8, mesh, microbatches=2)
    with pytest.raises(
        UserError, match=r"batch_size=102 is not divisible by 4 \(data=2 \* fsdp=2\); nearest: 100 or 104"
    ):
        check_batch(102, mesh)
    with pytest.raises(UserError, match=r"by 8 \(data=8 \* fsdp=1\); nearest: 96 or 104"):
        check_batch(100, Mesh().build())
    with pytest.raises(UserError, match=r"microbatches=3\); nearest: 12\."):
        check_batch(8, mesh, microbatches=3)


def test_parameters_lie_by_their_names_and_stay_whole_where_they_do_not_divide():
    mesh = Mesh(data=1, fsdp=4, tensor=2).build()

    def box(shape, *names):
        return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)

    tree = {
        "mlp": box((12, 8, 32), "layers", "embed", "mlp"),
        "odd heads": box((8, 3, 4), "embed", "heads", "head_dim"),
        "odd width": box((6, 32), "embed", "mlp"),
        "square": box((8, 8), "embed", "embed"),
        "unnamed": box((8, 8), None, "patch"),
        "scalar": jax.ShapeDtypeStruct((), jnp.int32),
    }
    specs = {name: sharding.spec for name, sharding in state_shardings(tree, mesh).items()}
    assert specs == {
        "mlp": P(None, "fsdp", "tensor"),
        "odd heads": P("fsdp", None, None),
        "odd width": P(None, "tensor"),
        "square": P("fsdp", None),
        "unnamed": P(None, None),
        "scalar": P(),
    }


def numbered(count: int, seen: list[int] | None = None):
    for number in range(count):
        if seen is not None:
            seen.append(number)
        yield {"x": np.full((8, 3), number, np.int16), "valid": np.ones(8, bool)}


def test_put_keeps_rows_in_order_and_dtypes():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    batch = put({"x": np.arange(16, dtype=np.uint8).reshape(8, 2)}, mesh)
    np.testing.assert_array_equal(batch["x"], np.arange(16).reshape(8, 2))
    assert batch["x"].dtype == jnp.uint8
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2, 2)}


def test_prefetch_gives_every_batch_in_order_and_never_reads_further_ahead_than_asked():
    seen: list[int] = []
    with device_prefetch(numbered(10, seen), Mesh().build(), size=2) as stream:
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert seen == [0, 1]
        assert [int(batch["x"][0, 0]) for batch in stream] == list(range(10))
    with pytest.raises(StopIteration):
        next(stream)


def test_a_source_that_hangs_is_told_after_its_time():
    hangs = threading.Event()

    def source():
        yield {"index": np.zeros(8, np.uint32)}
        hangs.wait(60)

    with device_prefetch(source(), Mesh().build(), patience=0.3) as stream:
        next(stream)
        with pytest.raises(StalledError, match=r"no batch has come for 0.3 s \(patience=0.3\)"):
            next(stream)
        hangs.set()


def test_of_the_processes_that_read_the_one_that_is_stopped_is_named():
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=time.sleep, args=(60,), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    pids: Any = [process.pid for process in processes]

    def hangs():
        yield from iter(lambda: time.sleep(1) or {}, None)

    try:
        with device_prefetch(hangs(), Mesh().build(), patience=0.1) as stream:
            named = ", ".join(map(str, sorted(pids)))
            with pytest.raises(StalledError, match=rf"the disk, the network or a process that reads \({named}\) hangs"):
                next(stream)
        os.kill(pids[0], signal.SIGSTOP)
        with device_prefetch(hangs(), Mesh().build(), patience=0.1) as stream:
            told = rf"0.1 s \(patience=0.1\): process {pids[0]}, which should read, is stopped \(SIGSTOP\). Start the"
            with pytest.raises(StalledError, match=told):
                next(stream)
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_prefetch_measures_the_time_its_consumer_waits():
    def slow():
        for batch in numbered(3):
            time.sleep(0.1)
            yield batch

    mesh = Mesh().build()
    put(next(numbered(1)), mesh)  # the first copy of a process takes longer
    with device_prefetch(slow(), mesh) as stream:
        next(stream)
        assert 0.05 < stream.waited < 0.3
        time.sleep(0.4)  # as a training step would: the next two are there by then
        before = stream.waited
        next(stream)
        next(stream)
        assert stream.waited - before < 0.05


def test_an_error_of_the_source_comes_out_where_batches_are_asked_for():
    def broken():
        yield from numbered(2)
        raise OSError("shard 7 is gone")

    with device_prefetch(broken(), Mesh().build()) as stream:
        next(stream)
        next(stream)
        with pytest.raises(OSError, match="shard 7 is gone"):
            next(stream)


def test_closing_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def endless():
        try:
            yield from numbered(10**9)
        finally:
            closed.set()

    before = threading.active_count()
    stream = device_prefetch(endless(), Mesh().build())
    next(stream)
    stream.close()
    assert closed.is_set()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(stream)
