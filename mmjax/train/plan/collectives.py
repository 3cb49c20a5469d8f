"""Collectives of a compiled program: which chips they join, and what each of these sends."""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmjax.train.plan.hlo import Instruction, array_bytes, elements

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
BETWEEN_SLICES = {"ALL_REDUCE": "all-reduce", "ONE_TO_ONE": "collective-permute"}
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}")


@dataclass(frozen=True)
class Collective:
    """Collectives of a kind over the same axes of the mesh, in one step. bytes: the bytes that a chip sends in all
    `count` of them.

    axes: of the mesh, or `?` where the program doesn't say it in a way that is known here. slow: between slices, or
    hosts of GPUs. seconds, exposed: of all `count`, and those that the step waits for; None where no schedule is read.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: float
    slow: bool
    seconds: float | None = None
    exposed: float | None = None


def collective_kind(instruction: Instruction, computation: str) -> str | None:
    """The kind of collective that an instruction is (its start, where it has a start and an end), or None."""
    if instruction.opcode == "send":  # a TPU's hosts do it between slices
        transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
        return BETWEEN_SLICES.get(transfer[1], "send") if transfer else None
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES or instruction.opcode.endswith("-done"):
        return None
    # A TPU's compiler fuses an all-reduce and the slice that each chip keeps of it.
    return "reduce-scatter" if computation.startswith("all-reduce-scatter") else kind


class Sent(NamedTuple):
    """The bytes that each chip of a collective sends. together: the number of chips of each slice that take part."""

    axes: tuple[str, ...]
    bytes: float
    slow: bool
    together: int


def sent(instruction: Instruction, kind: str, axes: dict[str, int], slices: int) -> Sent | None:
    """The bytes that a chip sends for one run of a collective; None where it joins nothing."""
    if instruction.opcode == "send":
        over, size, slow, together = tuple(axes)[:1], slices, True, 1
    else:
        over, size, slow, together = _over(_groups(instruction.rest, math.prod(axes.values())), axes, slices)
    if size < 2:
        return None
    payload = _payload(instruction)
    if kind == "reduce-scatter" and instruction.opcode.startswith("reduce-scatter"):
        payload *= size  # its result is one chip's part
    share = {"all-reduce": 2 * (size - 1) / size, "collective-permute": 1.0}.get(kind, (size - 1) / size)
    return Sent(over, payload * share, slow, together)


def _payload(instruction: Instruction) -> int:
    """Bytes of a collective's result. Where it has a start and an end, the start's type holds more than that."""
    if not instruction.opcode.endswith(("send", "-start")) or not instruction.type.startswith("("):
        return sum(array_bytes(instruction.type, fast=True))
    parts = elements(instruction.type)
    if parts[0].startswith("("):  # (operands, results)
        return sum(array_bytes(parts[1], fast=True))
    if instruction.opcode == "all-reduce-start":  # results alone
        return sum(array_bytes(instruction.type, fast=True))
    return max(array_bytes(instruction.type, fast=True), default=0)  # one operand, one result


def summed(found: dict[Any, tuple[Instruction, int]], axes: dict[str, int], slices: int) -> list[Collective]:
    """The collectives by kind and axes, with the bytes that a chip sends."""
    sums: dict[tuple[str, tuple[str, ...], bool], tuple[int, float]] = {}
    for (kind, *_), (instruction, times) in found.items():
        if (each := sent(instruction, kind, axes, slices)) is None:
            continue
        count, size = sums.get((kind, each.axes, each.slow), (0, 0.0))
        sums[kind, each.axes, each.slow] = count + times, size + times * each.bytes
    listed = [Collective(kind, over, count, size, slow) for (kind, over, slow), (count, size) in sums.items()]
    return sorted(listed, key=lambda c: -c.bytes)


def _groups(rest: str, devices: int) -> np.ndarray | None:
    """The devices that a collective is between, `[groups, devices in one]`; None where the text has
    another notation.
    """
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return np.array([[int(n) for n in pair] for pair in re.findall(r"(\d+),(\d+)", pairs[1])])
    if match := _MESH.search(rest):
        mesh, dims, order, axes = match.groups()
        return _along(mesh, dims, order, axes, devices)
    if not (groups := re.search(r"replica_groups=(.*?)(?:, [a-z_]+=|$)", rest)):
        return None
    text = groups[1]
    if text.startswith("{"):
        listed = [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]
        return np.array(listed) if listed else np.arange(devices)[None]
    if match := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = (_numbers(part) for part in match.groups())
        return _ordered(dims, order).reshape(shape)
    return None


def _along(mesh: str, dims: str | None, order: str | None, axes: str, devices: int) -> np.ndarray | None:
    """Groups along `'b'` of the mesh `'a'=4,'b'=2`, whose devices are in an order of their own where `dims` says so."""
    sizes = {name: int(n) for name, n in re.findall(r"'?(\w+)'?=(\d+)", mesh)}
    named = re.findall(r"'?(\w+)'?", axes)
    if math.prod(sizes.values()) != devices or not set(named) <= sizes.keys():
        return None
    ids = _ordered(_numbers(dims) or [devices], _numbers(order)).reshape(tuple(sizes.values()))
    kept = [place for place, name in enumerate(sizes) if name not in named]
    together = [list(sizes).index(name) for name in named]
    return ids.transpose(kept + together).reshape(-1, math.prod(sizes[name] for name in named))


def _ordered(dims: list[int], order: list[int]) -> np.ndarray:
    """The devices' numbers as an array of sizes `dims`, its axes then in another order."""
    return np.arange(math.prod(dims)).reshape(dims).transpose(order or range(len(dims)))


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in text.split(",")] if text else []


def _over(groups: np.ndarray | None, axes: dict[str, int], slices: int) -> tuple[tuple[str, ...], int, bool, int]:
    """The mesh axes along which the devices of a group differ, their number, whether the group spans slices, and the
    number of its devices in one slice.
    """
    if groups is None:
        return ("?",), 2, slices > 1, 1
    places = np.array(np.unravel_index(groups, tuple(axes.values())))  # [axes, groups, devices]
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    part = groups // (math.prod(axes.values()) // slices)
    slow = bool((part != part[:, :1]).any())
    together = groups.shape[1] // max(len(np.unique(group)) for group in part)
    return tuple(name for name, differs in zip(axes, differ, strict=True) if differs), groups.shape[1], slow, together
