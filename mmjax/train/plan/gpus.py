"""GPUs and hosts of them: the cards' capabilities, and devices that aren't there, for a compiler to compile for."""

import functools
import importlib.metadata
import importlib.resources
import importlib.util
import platform
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.errors import UserError
from mmjax.train.plan.quiet import quiet

MOST = 8  # cards of one host, which NVLink joins
GPU_SHAPES = f"1 to {MOST} (of one host), 2x{MOST}, 4x{MOST}, ... (hosts by GPUs of each)"
OUTSIDE = 2**30  # bytes of a card that jax can't use: CUDA's context, its libraries, NCCL's buffers; assumed
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
INSTALL = 'pip install "jax[cuda13]" (or -e ".[plan-gpu]" in mmjax), 4 GB, on Linux; no GPU and no driver is needed'


@dataclass(frozen=True)
class Card:
    """The capabilities of one GPU, by `gpus.toml`, which explains the fields. Bytes, bytes/s, FLOP/s, seconds."""

    kind: str
    name: str
    compute_capability: str
    multiprocessors: int
    fp32_units: int
    clock_ghz: float
    l2: int
    shared_memory: int
    shared_memory_per_block: int
    memory: int
    bandwidth: float
    pcie: int
    bf16: float
    tf32: float
    fp32: float
    nvlink: float
    network: float
    host_cores: float
    attained_products: float
    attained_memory: float
    least_kernel: float
    least_collective: float

    def product_rate(self, dtype: str, exact: bool = False) -> float:
        """FLOP/s that products attain. dtype: the operands', as HLO has it. exact: at the highest precision, which
        fp32 has outside the tensor cores only; else it is rounded to TF32 there."""
        peak = {"f32": self.fp32 if exact else self.tf32, "f64": self.fp32 / 2}.get(dtype, self.bf16)
        return peak * self.attained_products

    @property
    def memory_rate(self) -> float:
        """Bytes/s read and written that kernels attain."""
        return self.bandwidth * self.attained_memory

    def network_rate(self, together: int | None) -> float:
        """Bytes/s that each card of a collective sends. together: None within a host; or how many cards of each host
        take part: NCCL's rings leave it through the adapters of all of them."""
        return self.nvlink if together is None else min(self.nvlink, together * self.network)


@functools.cache
def cards() -> dict[str, Card]:
    """The cards of `gpus.toml` by their names in topologies."""
    text = importlib.resources.files("mmjax.train.plan").joinpath("gpus.toml").read_text(encoding="utf-8")
    read = tomllib.loads(text)
    attained = read.pop("attained")
    shares = {f"attained_{name}": attained[name] for name in ("products", "memory")}
    shares |= {f"least_{name}": attained[name] for name in ("kernel", "collective")}
    return {
        kind: Card(kind=kind, **{**values, "network": values["network"] / 8}, **shares) for kind, values in read.items()
    }


@dataclass(frozen=True)
class Hosts:
    """The parts of a name such as `h100:4x8`: the card, the number of hosts, and the number of cards of each."""

    card: Card
    hosts: int
    each: int


def hosts(topology: str) -> Hosts | None:
    """Reads `h100:8` (one host) or `h100:4x8` (four); None where it isn't a GPU's name.

    Raises:
        UserError: a known card with a shape that it can't have.
    """
    kind, _, shape = topology.partition(":")
    if kind not in cards():
        return None
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", shape)
    count, each = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not 1 <= each <= MOST:
        raise UserError(
            f"unknown topology {topology!r}: a host has 1 to {MOST} GPUs; {kind}:{MOST} is one host, {kind}:4x{MOST} "
            "are four"
        )
    return Hosts(cards()[kind], count, each)


def gpu_devices(topology: str, wanted: Hosts) -> Sequence[Any]:
    """Devices to compile for, host by host.

    Raises:
        UserError: the CUDA compiler isn't installed, or doesn't go with this jax.
    """
    from jax.experimental import topologies

    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        raise UserError(f"--topology {topology} needs the CUDA compiler: {INSTALL}")
    try:
        with quiet():  # the plugin says that there is no driver
            return topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                target_config=target_config(wanted.card),
                topology=f"1x{wanted.hosts}x{wanted.each}",  # slices, hosts, cards
            ).devices
    except Exception as error:  # jax's own, of several classes
        have = ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("jax", "jaxlib", *PLUGINS)
            if importlib.util.find_spec(name)
        )
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--topology {topology}: the CUDA compiler can't be had ({reason}). It needs Python 3.11, jax 0.10.2 or "
            f"newer and a CUDA plugin of jax's version; there are Python {platform.python_version()}, {have}: {INSTALL}"
        ) from error


def target_config(card: Card) -> str:
    """The card as XLA's `GpuTargetConfigProto`, in text, with the limits that all these cards have alike."""
    major, minor, fast = re.fullmatch(r"(\d+)\.(\d+)(a?)", card.compute_capability).groups()  # type: ignore[union-attr]
    feature = "ACCELERATED_FEATURES" if fast else "NONE"
    fields = {
        "threads_per_block_limit": 1_024, "threads_per_warp": 32, "shared_memory_per_block": 49_152,
        "shared_memory_per_core": card.shared_memory, "threads_per_core_limit": 2_048,
        "core_count": card.multiprocessors, "fpus_per_core": card.fp32_units,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535, "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(card.bandwidth), "l2_cache_size": card.l2, "clock_rate_ghz": card.clock_ghz,
        "device_memory_size": card.memory, "shared_memory_per_block_optin": card.shared_memory_per_block,
        "cuda_compute_capability": f"{{ major: {major} minor: {minor} feature_extension: {feature} }}",
        "registers_per_core_limit": 65_536, "registers_per_block_limit": 65_536,
        "thread_dim_limit_x": 1_024, "thread_dim_limit_y": 1_024, "thread_dim_limit_z": 64,
        "device_vendor": '"NVIDIA Corporation"', "platform_version": f'"Compute Capability {card.compute_capability}"',
        "device_address_bits": 64, "pcie_bandwidth": card.pcie, "ecc_enabled": "true", "name": f'"{card.name}"',
        "driver_version": '"13.0.0"', "runtime_version": '"13.0.0"', "compile_time_toolkit_version": '"13.0.0"',
        "dnn_version": '"9.10.0"',
    }  # fmt: skip
    info = "\n".join(f"  {name}: {value}" for name, value in fields.items())
    info = info.replace("cuda_compute_capability: {", "cuda_compute_capability {")
    return (
        f'gpu_device_info {{\n{info}\n}}\nplatform_name: "CUDA"\n'
        f'dnn_version_info {{ major: 9 minor: 10 patch: 0 }}\ndevice_description_str: "{card.name}"\n'
    )
