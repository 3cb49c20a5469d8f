"""Pods: the capabilities of chips, and the devices of a pod that isn't there, for a compiler to compile for."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from mmjax.errors import UserError, nearest
from mmjax.runtime.hosts import hosts_of
from mmjax.train.plan.gpus import GPU_SHAPES, MOST, OUTSIDE, Card, Hosts, cards, gpu_devices, hosts
from mmjax.train.plan.quiet import quiet

TFLOP, GB, GIB, GBIT = 1e12, 1e9, 2**30, 1e9 / 8


@dataclass(frozen=True)
class Chip:
    """The capabilities of one chip, by its maker's figures.

    flops: products in bf16 (fp32 on a CPU), FLOP/s. memory: bytes. bandwidth: of that memory, bytes/s.
    link: one link to a neighbour, one way, bytes/s. network: out of the slice, bytes/s, a host's share for one chip.
    host_cores: of a host's CPU, for each of its chips.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    host_cores: float


# Figures of Google's pages on each TPU, docs.cloud.google.com/tpu/docs/{v4, v5e, v5p, v6e, tpu7x}, read in November
# 2026.
# A link is a chip's interconnect by its ports (4 in a 2D torus, 6 in a 3D one) and by the two ways. The network between
# slices is given for v5e alone (6.4 Tbit/s for 256 chips) and assumed for the others, but v6e: 25.6, unconfirmed. Cores
# of a host: v5e 224 for 8 chips; unconfirmed and for 4 chips each: v4 240, v5p 208, v6e 180, tpu7x 224.
CHIPS = {
    "v4": Chip(275 * TFLOP, 32 * GIB, 1_200 * GB, 50 * GB, 25 * GBIT, 60),
    "v5e": Chip(197 * TFLOP, 16 * GIB, 819 * GB, 50 * GB, 25 * GBIT, 28),
    "v5p": Chip(459 * TFLOP, 95 * GIB, 2_765 * GB, 100 * GB, 25 * GBIT, 52),
    "v6e": Chip(918 * TFLOP, 32 * GIB, 1_638 * GB, 100 * GB, 100 * GBIT, 45),
    "tpu7x": Chip(2_307 * TFLOP, 192 * GIB, 7_380 * GB, 100 * GB, 25 * GBIT, 56),
}
SHAPES = {  # topologies that can be rented; the compiler takes others too
    "v4": "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8, 4x8x8, 8x8x8, 8x8x16, 8x16x16",
    "v5e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "v5p": "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8, 4x8x8, 8x8x8, 8x8x16, 8x16x16, 16x16x16, 16x16x24",
    "v6e": "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16",
    "tpu7x": "2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8, 4x8x8, 8x8x8, 8x8x16, 8x16x16",
}


@dataclass(frozen=True)
class Pod:
    """The devices of a topology. `chip` has the figures of one *device*: half a chip's, where a chip has
    two devices.
    """

    topology: str
    slices: int
    devices: Sequence[Any]
    chip: Chip
    chips: int
    hosts: int
    card: Card | None = None  # of a GPU, which has more to say

    @property
    def refuses(self) -> bool:
        """True if the compiler fails where the step doesn't fit, as a TPU's does; others don't check."""
        return self.topology.partition(":")[0] in CHIPS


def _known() -> str:
    """The topologies there are, a line for each kind of chip."""
    tpus = "\n".join(f"  {kind}: {shapes}" for kind, shapes in SHAPES.items())
    gpus = "\n".join(f"  {kind}: {GPU_SHAPES}" for kind in cards())
    return f"{tpus}\n{gpus}\n  cpu: any number, cpu:8 say"


def pod(topology: str, slices: int = 1) -> Pod:
    """The pod of that name, `v5e:16x16`, `h100:4x8` or `cpu:8`, as it will be there when it is rented.

    Raises:
        UserError: an unknown topology (the message lists the known ones), no compiler for it, or fewer CPU devices
            than asked for.
    """
    if slices < 1:
        raise UserError(f"slices={slices} must be at least 1")
    kind, _, shape = topology.partition(":")
    if kind == "cpu" and shape.isdecimal() and int(shape) > 0:
        return _cpu(int(shape), slices)
    if (wanted := hosts(topology)) is not None:
        return _gpus(topology, wanted, slices)
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(f"unknown topology {topology!r}{nearest(topology, _names())}; there are\n{_known()}")
    devices = _described(topology, kind, shape, slices)
    places = {(getattr(device, "slice_index", 0) or 0, tuple(device.coords)) for device in devices}
    part = len(places) / len(devices)  # the part of a chip that a device is
    chip = CHIPS[kind]
    own = Chip(chip.flops * part, chip.memory * part, chip.bandwidth * part, chip.link, chip.network * part,
               chip.host_cores * part)  # fmt: skip
    return Pod(topology, slices, devices, own, len(places), hosts_of(devices))


def _names() -> list[str]:
    tpus = [f"{kind}:{shape}" for kind, shapes in SHAPES.items() for shape in shapes.split(", ")]
    return tpus + [f"{kind}:{shape}" for kind in cards() for shape in (MOST, f"4x{MOST}")]


def _gpus(topology: str, wanted: Hosts, slices: int) -> Pod:
    if slices > 1:
        raise UserError(
            f"slices={slices} is for TPUs; {slices} hosts of GPUs are {wanted.card.kind}:{slices}x{wanted.each}"
        )
    card, devices = wanted.card, gpu_devices(topology, wanted)
    chip = Chip(card.bf16, card.memory - OUTSIDE, card.bandwidth, card.nvlink, card.network, card.host_cores)
    return Pod(topology, 1, devices, chip, len(devices), hosts_of(devices), card)


def _described(topology: str, kind: str, shape: str, slices: int) -> Sequence[Any]:
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as in a run
    if shape == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)  # a host of one chip; others have four
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else it waits for a server that only a TPU's host has
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # else one process at a time could plan
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f'--topology {topology} needs the TPU compiler, which runs without a TPU: pip install "jax[tpu]"\n'
            "(--topology cpu:8 works without it)"
        ) from error
    try:
        with quiet():
            return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as error:  # the compiler's exceptions have several classes
        reason = str(error).strip().splitlines()[0]
        if "INVALID_ARGUMENT" not in reason:
            raise UserError(f"the TPU compiler can't describe {topology}: {reason}") from error
        raise UserError(
            f"unknown topology {topology!r} ({reason}){nearest(topology, _names())}; there are\n{_known()}"
        ) from error


def _cpu(count: int, slices: int) -> Pod:
    from mmjax.train.plan.this_machine import machine_rates

    if slices > 1:
        raise UserError(f"slices={slices} is for TPUs; a CPU's devices are one slice")
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"--topology cpu:{count}, but jax was started with {len(devices)} CPU devices: set jax_num_cpu_devices "
            f"(JAX_NUM_CPU_DEVICES={count}) before it starts"
        )
    machine = machine_rates()
    own = Chip(
        flops=machine.flops / count,
        memory=machine.memory / count,
        bandwidth=machine.bandwidth / count,
        link=machine.bandwidth / count,
        network=machine.bandwidth / count,
        host_cores=(os.cpu_count() or 1) / count,
    )
    return Pod(f"cpu:{count}", 1, devices[:count], own, count, 1)
