"""Several hosts, as far as one process can tell: which rows each reads, and what they can say to each other."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from mmjax.errors import UserError
from mmjax.runtime import hosts
from mmjax.runtime.mesh import AXES


@dataclass(frozen=True)
class Device:
    """A stand-in."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"
    client: None = None


def mesh(shape: tuple[int, int, int], owners: list[int]) -> jax.sharding.Mesh:
    """owners: the host of each device, in the mesh's order."""
    devices = np.array([Device(i, host) for i, host in enumerate(owners)]).reshape(shape)
    return jax.sharding.Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)


def readers(shape: tuple[int, int, int], owners: list[int]) -> list[tuple[int, int]]:
    made = mesh(shape, owners)
    return [hosts.reader(made, 24, process) for process in range(max(owners) + 1)]


def test_hosts_in_order_read_one_part_each():
    assert readers((2, 4, 1), [0, 0, 0, 0, 1, 1, 1, 1]) == [(0, 2), (1, 2)]
    assert readers((1, 4, 2), [0, 0, 1, 1, 2, 2, 3, 3]) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert readers((8, 1, 1), [0] * 8) == [(0, 1)]


def test_hosts_that_share_rows_read_the_same_part():
    assert readers((1, 1, 8), [0, 0, 0, 0, 1, 1, 1, 1]) == [(0, 1), (0, 1)]
    assert readers((2, 1, 4), [0, 0, 1, 1, 2, 2, 3, 3]) == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_the_mesh_decides_and_not_the_number_of_the_host():
    assert readers((2, 4, 1), [1, 1, 1, 1, 0, 0, 0, 0]) == [(1, 2), (0, 2)]
    assert readers((2, 1, 4), [3, 3, 1, 1, 0, 0, 2, 2]) == [(1, 2), (0, 2), (1, 2), (0, 2)]
    assert readers((2, 2, 2), [0, 1, 0, 1, 2, 3, 2, 3]) == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_rows_that_are_no_block_are_a_part_too():
    assert readers((4, 2, 1), [1, 1, 0, 0, 1, 1, 0, 0]) == [(1, 2), (0, 2)]


def test_rows_that_are_partly_the_same_are_refused_with_what_would_do():
    with pytest.raises(
        UserError, match=r"tensor=2 over 2 hosts of 3 devices: .*partly the same\. tensor can be 1, 3, 6"
    ):
        readers((3, 1, 2), [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2.5, float("inf"), "ü\ud800", {"a": [None, True]}],
        {"raw": b"\x00\xff", "deep": [{"bytes": b""}]},
        {"@bytes": 3, "more": 1},
    ],
    ids=str,
)
def test_plain_data_comes_back_as_it_was(value):
    assert hosts.decode(hosts.encode(value)) == value


def test_arrays_come_back_with_their_dtype_and_shape():
    for array in (np.arange(6, dtype=np.int16).reshape(2, 3), np.zeros((0, 2), np.float32), np.array(["a", "bc"])):
        back = hosts.decode(hosts.encode({"x": array}))["x"]
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype
    assert hosts.decode(hosts.encode([np.float32(0.5), np.int64(3)])) == [0.5, 3]


def test_nothing_else_can_be_said():
    for value in (object(), np.array([object()]), {1, 2}, lambda: 3):
        with pytest.raises(TypeError, match="no plain data"):
            hosts.encode(value)


def test_one_host_waits_for_nobody():
    assert hosts.gathered("x") == ["x"]
    assert hosts.first(lambda: 3) == 3
    assert hosts.Largest(jax.make_mesh((8,), ("data",)))(15) == 15
    with pytest.raises(KeyError):
        hosts.together(lambda: {}["gone"])


def test_processes_that_nobody_announced_are_told_what_to_set(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"2 processes.*set JAX_COORDINATOR_ADDRESS=HOST:PORT.*JAX_NUM_PROCESSES=2"):
        hosts.join()
