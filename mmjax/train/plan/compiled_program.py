"""A compiled program, read: what its loops run how often, what moves through memory and between chips.

The compiler's own `cost_analysis` counts the body of a loop once, so the text of the program is read instead.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # the others say it: f32, s8, u64, f8e4m3
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
# What moves nothing: names, views, and what holds other instructions, which are counted themselves.
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional", "call", "iota"}
FREE |= {"send", "send-done", "recv", "recv-done"}  # to a host and back
FREE |= {"after-all", "partition-id", "replica-id", "opt-barrier", "copy-done", "async-done", "async-update"}
PRODUCTS = {"dot", "convolution"}
BETWEEN_SLICES = {"ALL_REDUCE": "all-reduce", "ONE_TO_ONE": "collective-permute"}

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"^([\w\-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)=\{?([^,}\s]+(?:, ?%[\w.\-]+)*)"
)


class Instruction(NamedTuple):
    """One line: its name, result type, opcode, operands' names, and the rest of the line."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool


@dataclass(frozen=True)
class Collective:
    """Collectives of a kind over the same axes of the mesh, in one step. bytes: that a chip sends, all `count` of them.

    axes: of the mesh, or `?` where the program doesn't say it in a way that is known here. slow: between slices.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: float
    slow: bool


@dataclass
class Program:
    """What a compiled step does on each chip, by its text. Bytes are those of a step.

    product_bytes: read and written by instructions with matrix products in them; other_bytes: by all others.
    """

    product_bytes: float = 0.0
    other_bytes: float = 0.0
    collectives: list[Collective] = field(default_factory=list)


def read_program(text: str, axes: dict[str, int], slices: int = 1) -> Program:
    """Reads the text of a compiled program.

    Args:
        text: `compiled.as_text()`.
        axes: names and sizes of the mesh axes, outermost first; the program's devices are numbered in that order.
        slices: of which the first axis's parts are, in order.
    """
    computations, entry = _parsed(text)
    program, found = Program(), {}
    for name, times in _rounds(computations, entry).items():
        for instruction in computations[name].values():
            if (kind := _collective(instruction, name)) is not None:
                key: tuple[Any, ...] = kind, name, instruction.name
                if times.fused and (channel := re.search(r"channel_id=(\d+)", instruction.rest)):
                    # One that runs beside products stands in several fused pieces, under one channel.
                    key = kind, channel[1], tuple(match[:2] for match in _ARRAY.findall(instruction.type))
                if key not in found or found[key][1] < times.count:
                    found[key] = instruction, times.count
            elif not times.fused and instruction.opcode not in FREE:
                moved = times.count * _moved(instruction, computations[name], computations)
                if _multiplies(instruction, computations):
                    program.product_bytes += moved
                else:
                    program.other_bytes += moved
    program.collectives = _summed(found, axes, slices)
    return program


class Times(NamedTuple):
    """How often a computation runs, and whether within one fused instruction."""

    count: int
    fused: bool


Computation = dict[str, Instruction]
Computations = dict[str, Computation]


def _parsed(text: str) -> tuple[Computations, str]:
    computations: Computations = {}
    entry, lines = "", None
    for line in text.splitlines():
        if line[:1] not in (" ", "}", ""):
            head = _HEAD.match(line)
            if head:
                lines = computations.setdefault(head[2], {})
                entry = head[2] if head[1] else entry
        elif lines is not None and (match := _LINE.match(line)):
            instruction = _instruction(match[2], match[3], bool(match[1]))
            if instruction is not None:
                lines[instruction.name] = instruction
    return computations, entry


def _instruction(name: str, rest: str, root: bool) -> Instruction | None:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    last = _closing(rest, opcode.end() - 1)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opcode.end() : last]))
    return Instruction(name, kind, opcode[1], operands, rest[opcode.end() :], root)


def _closing(text: str, start: int) -> int:
    """The place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _called(instruction: Instruction) -> Iterator[tuple[str, str]]:
    for how, names in _CALLED.findall(instruction.rest):
        for name in re.findall(r"[\w.\-]+", names.replace("%", " ")):
            yield how, name


def _rounds(computations: Computations, entry: str) -> dict[str, Times]:
    """How often each computation runs in one run of the program."""
    found: dict[str, Times] = {}

    def visit(name: str, count: int, fused: bool) -> None:
        before = found.get(name)
        found[name] = Times(count + (before.count if before else 0), fused and (before is None or before.fused))
        for instruction in computations[name].values():
            for how, callee in _called(instruction):
                if callee not in computations or (how in ("condition", "to_apply") and instruction.opcode != "call"):
                    continue  # a reduction's or a comparison's few scalars
                rounds = _trips(computations, instruction) if how == "body" else 1
                within = fused or instruction.opcode == "fusion" or instruction.opcode.endswith("-start")
                visit(callee, count * rounds, within)

    visit(entry, 1, False)
    return found


def _trips(computations: Computations, loop: Instruction) -> int:
    """How often a while loop runs: known to the compiler, or else the constant that its counter is compared with."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if known:
        return int(known[1])
    condition = next((name for how, name in _called(loop) if how == "condition"), None)
    pending, constants = [condition], []
    while pending:
        for instruction in computations.get(pending.pop() or "", {}).values():
            if instruction.opcode == "constant" and (value := re.match(r"(\d+)\)", instruction.rest)):
                constants.append(int(value[1]))
            pending += [name for how, name in _called(instruction) if how == "calls"]
    return max(constants, default=1)


def _sizes(kind: str, fast: bool = False) -> list[int]:
    """Bytes of each array in a type. fast: count those in the chip's own fast memory (a TPU's `S(1)`) too."""
    sizes = []
    for dtype, dims, layout in _ARRAY.findall(kind):
        bits = BITS.get(dtype) or int((re.findall(r"\d+", dtype) or ["32"])[0])
        near = re.search(r"S\([1-9]\d*\)", layout or "")
        sizes.append(0 if near and not fast else bits * math.prod(int(n) for n in dims.split(",") if n) // 8)
    return sizes


def _moved(instruction: Instruction, around: Computation, computations: Computations) -> int:
    """Bytes that an instruction reads and writes: of what is sliced, or updated in place, only the part."""
    out = sum(_sizes(instruction.type))
    if instruction.opcode.endswith("-start"):  # its type holds what is read and what is written
        return out
    if instruction.opcode in ("slice", "dynamic-slice", "gather"):
        return 2 * out
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _size(instruction.operands[1], around)
    if instruction.opcode != "fusion":
        return out + sum(_size(name, around) for name in instruction.operands)
    inside = computations[next(name for how, name in _called(instruction) if how == "calls")]
    parameters = {i.rest.split(")")[0]: i.name for i in inside.values() if i.opcode == "parameter"}
    reads = sum(
        _read(parameters.get(str(place), ""), inside, _size(name, around))
        for place, name in enumerate(instruction.operands)
    )
    root = next(i for i in inside.values() if i.root)
    results = [inside[name] for name in root.operands if name in inside] if root.opcode == "tuple" else [root]
    return reads + sum(_written(result, inside) for result in results)


def _size(name: str, around: Computation) -> int:
    return sum(_sizes(around[name].type)) if name in around else 0


def _read(parameter: str, inside: Computation, whole: int) -> int:
    """Bytes that a fused instruction reads of one of its operands."""
    users = [i for i in inside.values() if parameter in i.operands]
    while len(users) == 1 and users[0].opcode == "bitcast":
        parameter = users[0].name
        users = [i for i in inside.values() if parameter in i.operands]
    parts = 0
    for user in users:
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == parameter:
            parts += min(whole, sum(_sizes(user.type)))
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == parameter):
            return whole
    return parts


def _written(result: Instruction, inside: Computation) -> int:
    """Bytes that a fused instruction writes for one of its results."""
    size = sum(_sizes(result.type))
    while result.opcode == "bitcast" and result.operands[0] in inside:
        result = inside[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return min(size, _size(result.operands[1], inside))
    return size


def _collective(instruction: Instruction, computation: str) -> str | None:
    """The kind of collective that an instruction is (its start, where it has a start and an end), or None."""
    if instruction.opcode == "send":  # between slices a TPU's hosts do it
        transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
        return BETWEEN_SLICES.get(transfer[1], "send") if transfer else None
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES or instruction.opcode.endswith("-done"):
        return None
    # A TPU's compiler fuses an all-reduce and the slice that each chip keeps of it.
    return "reduce-scatter" if computation.startswith("all-reduce-scatter") else kind


def _summed(found: dict[Any, tuple[Instruction, int]], axes: dict[str, int], slices: int) -> list[Collective]:
    """The collectives by kind and axes, with the bytes that a chip sends."""
    sums: dict[tuple[str, tuple[str, ...], bool], tuple[int, float]] = {}
    for (kind, *_), (instruction, times) in found.items():
        if instruction.opcode == "send":
            over, size, slow = tuple(axes)[:1], slices, True
        else:
            over, size, slow = _over(_groups(instruction.rest, math.prod(axes.values())), axes, slices)
        if size < 2:
            continue
        sizes = _sizes(instruction.type, fast=True)
        if instruction.opcode.endswith(("send", "-start")):  # operand and result: the larger is what is gathered
            sizes = [max(sizes, default=0)]
        payload = sum(sizes)
        if kind == "reduce-scatter" and instruction.opcode.startswith("reduce-scatter"):
            payload *= size  # its result is one chip's part
        share = {"all-reduce": 2 * (size - 1) / size, "collective-permute": 1.0}.get(kind, (size - 1) / size)
        count, sent = sums.get((kind, over, slow), (0, 0.0))
        sums[kind, over, slow] = count + times, sent + times * payload * share
    listed = [Collective(kind, over, count, sent, slow) for (kind, over, slow), (count, sent) in sums.items()]
    return sorted(listed, key=lambda c: -c.bytes)


def _groups(rest: str, devices: int) -> np.ndarray | None:
    """Which devices a collective is between, `[groups, devices in one]`; None where the text says it in another way."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return np.array([[int(n) for n in pair] for pair in re.findall(r"(\d+),(\d+)", pairs[1])])
    if not (groups := re.search(r"replica_groups=(.*?)(?:, [a-z_]+=|$)", rest)):
        return None
    text = groups[1]
    if text.startswith("{"):
        listed = [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]
        return np.array(listed) if listed else np.arange(devices)[None]
    if match := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims, order = ([int(n) for n in part.split(",")] if part else [] for part in match.groups())
        ids = np.arange(math.prod(dims)).reshape(dims)
        return ids.transpose(order or range(len(dims))).reshape(shape)
    if match := re.match(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = {name: int(n) for name, n in re.findall(r"'?(\w+)'?=(\d+)", match[1])}
        named = re.findall(r"'?(\w+)'?", match[2])
        if math.prod(sizes.values()) == devices and set(named) <= sizes.keys():
            ids = np.arange(devices).reshape(tuple(sizes.values()))
            kept = [place for place, name in enumerate(sizes) if name not in named]
            together = [list(sizes).index(name) for name in named]
            return ids.transpose(kept + together).reshape(-1, math.prod(sizes[name] for name in named))
    return None


def _over(groups: np.ndarray | None, axes: dict[str, int], slices: int) -> tuple[tuple[str, ...], int, bool]:
    """The mesh axes along which the devices of a group differ, how many they are, and whether slices are between."""
    if groups is None:
        return ("?",), 2, slices > 1
    places = np.array(np.unravel_index(groups, tuple(axes.values())))  # [axes, groups, devices]
    differ = (places != places[:, :, :1]).any(axis=(1, 2))
    part = groups // (math.prod(axes.values()) // slices)
    slow = bool((part != part[:, :1]).any())
    return tuple(name for name, differs in zip(axes, differ, strict=True) if differs), groups.shape[1], slow


def _multiplies(instruction: Instruction, computations: Computations) -> bool:
    """Whether there is a matrix product in it. (A CPU's come as calls of a library.)"""
    if instruction.opcode in PRODUCTS:
        return True
    if instruction.opcode == "custom-call":
        return bool(re.search(r'custom_call_target="[^"]*(matmul|dot|conv)', instruction.rest))
    inner = [name for how, name in _called(instruction) if how == "calls"]
    return any(_multiplies(i, computations) for name in inner for i in computations.get(name, {}).values())
