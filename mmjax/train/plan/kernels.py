"""Kernels of a program compiled for a GPU or a TPU: the class of each, its bytes through memory, and its products."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from mmjax.train.plan.hlo import ARRAY, Computation, Computations, Instruction, called
from mmjax.train.plan.traffic import FREE, bytes_moved

PRODUCTS, ATTENTION = "products", "attention"
WRITES, REDUCTIONS, COPIES = "stacked writes", "reductions", "transposes and copies"
ELEMENTWISE, OTHER = "elementwise", "others"
CLASSES = (PRODUCTS, ATTENTION, ELEMENTWISE, REDUCTIONS, COPIES, WRITES, OTHER)  # as they are listed

# Opcodes of a kernel that computes nothing and only moves data.
PLACES = {"parameter", "constant", "bitcast", "copy", "transpose", "reshape", "broadcast", "slice", "dynamic-slice"}
PLACES |= {"pad", "concatenate", "reverse", "iota", "tuple", "get-tuple-element"}
OTHERS = {"scatter", "gather", "sort", "rng-bit-generator", "custom-call", "fft", "cholesky", "triangular-solve"}
_BATCHED = re.compile(r'"?rhs_contracting_dim(?:ension)?s"?\s*[=:]\s*[\[{]([\d", ]*)[\]}]')


class Multiplied(NamedTuple):
    """FLOPs of a matrix product. dtype: the operands'. exact: at the highest precision, which is slower for fp32."""

    flops: int
    dtype: str
    exact: bool


class Kernel(NamedTuple):
    """One kernel: its class, bytes read and written, and its products."""

    kind: str
    bytes: int
    products: tuple[Multiplied, ...]

    @property
    def flops(self) -> int:
        """FLOPs of all its products."""
        return sum(product.flops for product in self.products)


def kernel(instruction: Instruction, around: Computation, computations: Computations) -> Kernel | None:
    """The kernel that an instruction of a computation (not within a fusion) is; None where it is none.

    Its class is that of the most expensive operation in it: a product with a GELU fused to it is a product. Attention
    without cuDNN is products and a reduction. A collective is no kernel here: the caller asks for that first.
    """
    if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
        return None
    inside = list(_within(instruction, around, computations))
    products = tuple(found for each, there in inside if (found := _multiplied(each, there)) is not None)
    opcodes = {each.opcode for each, _ in inside}
    if _fused_attention(instruction):
        kind = ATTENTION
    elif products:
        kind = PRODUCTS
    elif "dynamic-update-slice" in opcodes:
        kind = WRITES
    elif opcodes & OTHERS:
        kind = OTHER
    elif opcodes & {"reduce", "reduce-window"}:
        kind = REDUCTIONS
    elif "transpose" in opcodes or opcodes <= PLACES:
        kind = COPIES
    else:
        kind = ELEMENTWISE
    return Kernel(kind, bytes_moved(instruction, around, computations), products)


def _within(
    instruction: Instruction, around: Computation, computations: Computations
) -> Iterator[tuple[Instruction, Computation]]:
    """The operations of a kernel: the instruction, or those fused in it, each with the computation around it."""
    inner = [name for how, name in called(instruction) if how == "calls" and name in computations]
    if not inner:
        yield instruction, around
    for name in inner:
        for each in computations[name].values():
            yield from _within(each, computations[name], computations)


def _multiplied(instruction: Instruction, around: Computation) -> Multiplied | None:
    """The products that an instruction is, as an operation of HLO or a call of cuBLAS or cuDNN."""
    if instruction.opcode == "dot":
        return _gemm(instruction, around)
    if instruction.opcode == "convolution":
        return _convolved(instruction, around, "Forward")
    if instruction.opcode != "custom-call":
        return None
    target = re.search(r'custom_call_target="([^"]*)"', instruction.rest)
    name = target[1] if target else ""
    if name.startswith("__cublas"):
        return _gemm(instruction, around)
    if name.startswith("__cudnn$conv"):
        return _convolved(instruction, around, name)
    if name.startswith("__cudnn$fmha"):
        return _attended(instruction, around, backward="Backward" in name)
    return None


def _fused_attention(instruction: Instruction) -> bool:
    """True for cuDNN's attention, and for a TPU's kernel by Pallas, of which attention is the only one here."""
    return bool(re.search(r'custom_call_target="(__cudnn\$fmha|tpu_custom_call")', instruction.rest))


def _gemm(instruction: Instruction, around: Computation) -> Multiplied | None:
    """2 m n k: the outputs times the summed length, which is that of the right side's contracted dimensions."""
    contracted = _BATCHED.search(instruction.rest)
    if contracted is None or len(instruction.operands) < 2:
        return None
    dtype, right = _shape(instruction.operands[1], around)
    summed = math.prod(right[int(n)] for n in re.findall(r"\d+", contracted[1]))
    return Multiplied(2 * math.prod(_arrays(instruction.type)[0][1]) * summed, dtype, _exact(instruction))


def _convolved(instruction: Instruction, around: Computation, name: str) -> Multiplied | None:
    """2 x outputs x weights of an output channel. `name` says which of the three arrays is the call's result."""
    labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
    if labels is None or len(instruction.operands) < 2:
        return None
    result, (dtype, first) = _arrays(instruction.type)[0][1], _shape(instruction.operands[0], around)
    second = _shape(instruction.operands[1], around)[1]
    outputs, weights = result, second
    if "BackwardInput" in name:
        outputs, weights = first, second
    elif "BackwardFilter" in name:
        outputs, weights = second, result
    flops = 2 * math.prod(outputs) * math.prod(weights) // weights[labels[1].index("o")]
    return Multiplied(flops, dtype, _exact(instruction))


def _attended(instruction: Instruction, around: Computation, backward: bool) -> Multiplied | None:
    """Two products `[b, h, n, m]` by the heads' width; five in the backward pass, which makes the logits again."""
    logits = re.search(r'"intermediate_tensor_shape":\s*\{.*?"dimensions":\s*\[([^\]]*)\]', instruction.rest)
    if logits is None or not instruction.operands:
        return None
    dtype, query = _shape(instruction.operands[0], around)
    if not query:
        return None
    size = math.prod(int(n) for n in re.findall(r"\d+", logits[1]))
    return Multiplied((10 if backward else 4) * size * query[-1], dtype, False)


def _exact(instruction: Instruction) -> bool:
    return bool(re.search(r'operand_precision[="]+:?\s*[{\[]"?highest', instruction.rest, re.IGNORECASE))


def _arrays(kind: str) -> list[tuple[str, list[int]]]:
    """The dtype and the sizes of each array of a type."""
    return [(dtype, [int(n) for n in dims.split(",") if n]) for dtype, dims, _ in ARRAY.findall(kind)]


def _shape(name: str, around: Computation) -> tuple[str, list[int]]:
    found = _arrays(around[name].type) if name in around else []
    return found[0] if found else ("", [])
