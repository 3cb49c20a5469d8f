"""The text of a compiled program (XLA's HLO), parsed: its computations, their instructions, and how often each runs.

The compiler's own `cost_analysis` counts the body of a loop once, so the text of the program is read instead.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # other types have it in their names: f32, s8, u64, f8e4m3

ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"^([\w\-]+)\(")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)=\{?([^,}\s]+(?:, ?%[\w.\-]+)*)"
)


class Instruction(NamedTuple):
    """One line of the program: its name, result type, opcode, operands' names, and the rest of the line."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool


Computation = dict[str, Instruction]
Computations = dict[str, Computation]


class Times(NamedTuple):
    """The number of times that a computation runs, and whether within one fused instruction."""

    count: int
    fused: bool


def parse_program(text: str) -> tuple[Computations, str]:
    """The computations of `compiled.as_text()` by name, and the name of the one that is run."""
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


def called(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """The computations that an instruction names, each after how it is called: `("body", "region_0")`."""
    for how, names in _CALLED.findall(instruction.rest):
        for name in re.findall(r"[\w.\-]+", names.replace("%", " ")):
            yield how, name


def runs(computations: Computations, entry: str) -> dict[str, Times]:
    """The number of times that each computation runs in one run of the program."""
    found: dict[str, Times] = {}

    def visit(name: str, count: int, fused: bool) -> None:
        before = found.get(name)
        found[name] = Times(count + (before.count if before else 0), fused and (before is None or before.fused))
        for instruction in computations[name].values():
            for how, callee in called(instruction):
                if callee not in computations or (how in ("condition", "to_apply") and instruction.opcode != "call"):
                    continue  # skips a reduction's or a comparison's few scalars
                rounds = trips(computations, instruction) if how == "body" else 1
                within = fused or instruction.opcode == "fusion" or instruction.opcode.endswith("-start")
                visit(callee, count * rounds, within)

    visit(entry, 1, False)
    return found


def trips(computations: Computations, loop: Instruction) -> int:
    """The trip count of a while loop: the compiler's, or else the constant that its counter is compared with."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
    if known:
        return int(known[1])
    condition = next((name for how, name in called(loop) if how == "condition"), None)
    pending, constants = [condition], []
    while pending:
        for instruction in computations.get(pending.pop() or "", {}).values():
            if instruction.opcode == "constant" and (value := re.match(r"(\d+)\)", instruction.rest)):
                constants.append(int(value[1]))
            pending += [name for how, name in called(instruction) if how == "calls"]
    return max(constants, default=1)


def array_bytes(kind: str, fast: bool = False) -> list[int]:
    """Bytes of each array in a type, as it lies in memory: a TPU's are cut into tiles of 8 x 128 or so, and filled up.

    fast: count those in the chip's own fast memory (a TPU's `S(1)`) too.
    """
    sizes = []
    for dtype, dims, layout in ARRAY.findall(kind):
        bits = BITS.get(dtype) or int((re.findall(r"\d+", dtype) or ["32"])[0])
        near = re.search(r"S\([1-9]\d*\)", layout or "")
        shape = _filled([int(n) for n in dims.split(",") if n], layout or "")
        sizes.append(0 if near and not fast else bits * math.prod(shape) // 8)
    return sizes


def _filled(shape: list[int], layout: str) -> list[int]:
    """The shape in whole tiles. A layout such as `1,0:T(8,128)(2,1)` lists dimensions from the innermost, and the sizes
    of a tile from its outermost."""
    tiled = re.match(r"([\d,]+):T\(([\d,]+)\)", layout)
    if tiled is None:
        return shape
    inner, tile = ([int(n) for n in part.split(",")] for part in tiled.groups())
    for dimension, size in zip(inner, reversed(tile), strict=False):
        shape[dimension] = -(-shape[dimension] // size) * size
    return shape


def operand_bytes(name: str, around: Computation) -> int:
    """Bytes of what an instruction gives; 0 where there is none of that name."""
    return sum(array_bytes(around[name].type)) if name in around else 0


def elements(kind: str) -> list[str]:
    """The types of a tuple's elements, which may be tuples themselves."""
    found, depth, start = [], 0, 1
    for place, letter in enumerate(kind):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(letter, 0)
        if (letter == "," and depth == 1) or (depth == 0 and letter == ")"):
            found.append(kind[start:place].strip())
            start = place + 1
    return found
