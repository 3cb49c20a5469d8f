import sys

import jax
import pytest

from mmjax.errors import UserError
from mmjax.train.plan.chips import CHIPS, SHAPES, pod

TPU = pytest.mark.skipif(sys.platform != "linux", reason="libtpu is for Linux")


def test_this_machines_cpu_shares_what_it_can_do():
    whole, eighth = pod("cpu:1"), pod("cpu:8")
    assert (len(eighth.devices), eighth.chips, eighth.hosts, eighth.refuses) == (8, 8, 1, False)
    assert eighth.chip.flops == whole.chip.flops / 8
    assert eighth.chip.memory == whole.chip.memory / 8
    assert 1e9 < whole.chip.flops < 1e14
    assert 1e8 < whole.chip.bandwidth < 1e13


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:16x17", "unknown topology 'v5e:16x17'.*did you mean v5e:16x16"),
        ("v9:2x2", "unknown topology 'v9:2x2'"),
        ("v5e", "unknown topology 'v5e'"),
        ("cpu", "unknown topology 'cpu'"),
        ("cpu:0", "unknown topology 'cpu:0'"),
        ("", "unknown topology ''"),
    ],
)
def test_an_unknown_topology_names_the_known_ones(topology, message):
    with pytest.raises(UserError, match=f"(?s){message}") as error:
        pod(topology)
    for kind in CHIPS:
        assert f"{kind}: {SHAPES[kind]}" in str(error.value)


def test_more_cpu_devices_than_there_are():
    with pytest.raises(UserError, match=r"cpu:16, but jax was started with 8 CPU devices.*JAX_NUM_CPU_DEVICES=16"):
        pod("cpu:16")
    with pytest.raises(UserError, match="slices=2 is for TPUs"):
        pod("cpu:8", slices=2)
    with pytest.raises(UserError, match="slices=0 must be at least 1"):
        pod("v5e:2x4", slices=0)


def test_without_the_tpu_compiler_the_error_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match=r'pip install "jax\[tpu\]"(?s:.*)cpu:8 works without it'):
        pod("v5e:2x4")


@TPU
@pytest.mark.parametrize(
    ("topology", "slices", "devices", "chips", "hosts"),
    [
        ("v5e:2x4", 1, 8, 8, 2),
        ("v5e:16x16", 2, 512, 512, 128),
        ("v4:8x8x8", 1, 512, 512, 128),
        ("v5p:2x2x2", 1, 8, 8, 2),
        ("tpu7x:2x2x1", 1, 8, 4, 1),
    ],
)
def test_pods(topology, slices, devices, chips, hosts):
    found = pod(topology, slices)
    assert (len(found.devices), found.chips, found.hosts, found.refuses) == (devices, chips, hosts, True)
    kind = CHIPS[topology.partition(":")[0]]
    assert found.chip.flops * devices == kind.flops * chips  # a device may be half a chip
    assert found.chip.memory * devices == kind.memory * chips


@TPU
def test_meshes_of_pods():
    """`fsdp=8` is no side of a 16x16; on several slices each has its part of `data`, and `fsdp` stays within one."""
    from mmjax.runtime.mesh import Mesh

    assert dict(Mesh(fsdp=8).build(pod("v6e:16x16").devices).shape) == {"data": 32, "fsdp": 8, "tensor": 1}
    assert dict(Mesh(fsdp=4, tensor=2).build(pod("v4:8x8x8").devices).shape) == {"data": 64, "fsdp": 4, "tensor": 2}
    two = Mesh(fsdp=8).build(pod("v5e:4x4", 2).devices)
    assert dict(two.shape) == {"data": 4, "fsdp": 8, "tensor": 1}
    slices = [{device.slice_index for device in row.flat} for row in two.devices]
    assert slices == [{0}, {0}, {1}, {1}]
    with pytest.raises(UserError, match=r"data=1 on 2 slices of 16 devices.*fsdp\*tensor=32 can be 1, 2, 4, 8 or 16"):
        Mesh(fsdp=32).build(pod("v5e:4x4", 2).devices)


def test_planning_leaves_the_devices_alone():
    before = jax.devices()
    pod("cpu:8")
    assert jax.devices() == before
