"""Bytes that the instructions of a compiled program read from memory and write to it."""

import re

from mmjax.train.plan.hlo import Computation, Computations, Instruction, array_bytes, called, elements, operand_bytes

# Opcodes that move no bytes: names, views, and those that hold other instructions, which are counted themselves.
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "while", "conditional", "call", "iota"}
FREE |= {"send", "send-done", "recv", "recv-done"}  # to a host and back
FREE |= {
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "copy-done",
    "slice-done",
    "async-done",
    "async-update",
    "fusion-done",
}
PRODUCTS = {"dot", "convolution"}


def bytes_moved(instruction: Instruction, around: Computation, computations: Computations) -> int:
    """Bytes that an instruction reads and writes; of an operand that is sliced, or updated in place, only that part."""
    out = sum(array_bytes(instruction.type))
    if instruction.opcode == "slice-start":  # a TPU fetches ahead into its fast memory; its type: ((operand), result)
        result = elements(instruction.type)[1]
        return sum(array_bytes(result, fast=True)) + sum(array_bytes(result))
    fused = instruction.opcode in ("fusion", "fusion-start")
    if instruction.opcode.endswith("-start") and not fused:  # its type holds both operand and result
        return out
    if instruction.opcode in ("slice", "dynamic-slice", "gather"):
        return 2 * out
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operand_bytes(instruction.operands[1], around)
    if not fused:
        return out + sum(operand_bytes(name, around) for name in instruction.operands)
    inside = computations[next(name for how, name in called(instruction) if how == "calls")]
    parameters = {i.rest.split(")")[0]: i.name for i in inside.values() if i.opcode == "parameter"}
    reads = sum(
        _read(parameters.get(str(place), ""), inside, operand_bytes(name, around))
        for place, name in enumerate(instruction.operands)
    )
    root = next(i for i in inside.values() if i.root)
    results = [inside[name] for name in root.operands if name in inside] if root.opcode == "tuple" else [root]
    return reads + sum(_written(result, inside) for result in results)


def _read(parameter: str, inside: Computation, whole: int) -> int:
    """Bytes that a fused instruction reads of one of its operands."""
    users = [i for i in inside.values() if parameter in i.operands]
    while len(users) == 1 and users[0].opcode == "bitcast":
        parameter = users[0].name
        users = [i for i in inside.values() if parameter in i.operands]
    parts = 0
    for user in users:
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == parameter:
            parts += min(whole, sum(array_bytes(user.type)))
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == parameter):
            return whole
    return parts


def _written(result: Instruction, inside: Computation) -> int:
    """Bytes that a fused instruction writes for one of its results."""
    size = sum(array_bytes(result.type))
    while result.opcode == "bitcast" and result.operands[0] in inside:
        result = inside[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return min(size, operand_bytes(result.operands[1], inside))
    return size


def multiplies(instruction: Instruction, computations: Computations) -> bool:
    """True if the instruction has a matrix product in it. (A CPU's are calls of a library.)"""
    if instruction.opcode in PRODUCTS:
        return True
    if instruction.opcode == "custom-call":
        return bool(re.search(r'custom_call_target="[^"]*(matmul|dot|conv)', instruction.rest))
    inner = [name for how, name in called(instruction) if how == "calls"]
    return any(multiplies(i, computations) for name in inner for i in computations.get(name, {}).values())
