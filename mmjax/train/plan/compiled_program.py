"""A compiled program, read: what moves through memory and between chips in one step."""

import re
from dataclasses import dataclass, field
from typing import Any

from mmjax.train.plan.collectives import Collective, collective_kind, summed
from mmjax.train.plan.hlo import ARRAY, parse_program, runs
from mmjax.train.plan.kernels import kernel
from mmjax.train.plan.traffic import FREE, bytes_moved, multiplies


@dataclass
class Program:
    """The work of a compiled step on each chip, by the program's text. Bytes are those of a step.

    product_bytes: read and written by instructions with matrix products in them; other_bytes: by all others. kernels:
    of each class (`kernels.CLASSES`) the number and the bytes.
    """

    product_bytes: float = 0.0
    other_bytes: float = 0.0
    collectives: list[Collective] = field(default_factory=list)
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)


def read_program(text: str, axes: dict[str, int], slices: int = 1) -> Program:
    """Reads the text of a compiled program.

    Args:
        text: `compiled.as_text()`.
        axes: names and sizes of the mesh axes, outermost first; the program's devices are numbered in that order.
        slices: the number of slices, which the first axis's parts are on, in order.
    """
    computations, entry = parse_program(text)
    program, found = Program(), {}
    for name, times in runs(computations, entry).items():
        for instruction in computations[name].values():
            if (kind := collective_kind(instruction, name)) is not None:
                key: tuple[Any, ...] = kind, name, instruction.name
                if times.fused and (channel := re.search(r"channel_id=(\d+)", instruction.rest)):
                    # A collective that runs beside products is in several fused pieces, under one channel.
                    key = kind, channel[1], tuple(match[:2] for match in ARRAY.findall(instruction.type))
                if key not in found or found[key][1] < times.count:
                    found[key] = instruction, times.count
            elif not times.fused and instruction.opcode not in FREE:
                moved = times.count * bytes_moved(instruction, computations[name], computations)
                if (found_kernel := kernel(instruction, computations[name], computations)) is not None:
                    count, size = program.kernels.get(found_kernel.kind, (0, 0.0))
                    program.kernels[found_kernel.kind] = count + times.count, size + moved
                if multiplies(instruction, computations):
                    program.product_bytes += moved
                else:
                    program.other_bytes += moved
    program.collectives = summed(found, axes, slices)
    return program
