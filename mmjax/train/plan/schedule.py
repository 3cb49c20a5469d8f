"""The time of a program compiled for GPUs, by its schedule: kernel after kernel, and collectives beside them."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from mmjax.train.plan.collectives import Collective, collective_kind, sent
from mmjax.train.plan.gpus import Card
from mmjax.train.plan.hlo import Computation, Computations, Instruction, called, parse_program, trips
from mmjax.train.plan.kernels import ATTENTION, CLASSES, PRODUCTS, Kernel, kernel


@dataclass(frozen=True)
class Kernels:
    """All kernels of a class in one step, on one device. seconds: by the roofline."""

    kind: str
    count: int
    bytes: int
    flops: int
    seconds: float


@dataclass
class Schedule:
    """The work of one device in a step. seconds: of the whole step; exposed: those of waiting for the network."""

    seconds: float = 0.0
    exposed: float = 0.0
    kernels: list[Kernels] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)

    def of(self, *kinds: str) -> float:
        """Seconds of the kernels of these classes."""
        return sum(each.seconds for each in self.kernels if each.kind in kinds)

    @property
    def products(self) -> float:
        """Seconds of products and attention."""
        return self.of(PRODUCTS, ATTENTION)

    @property
    def memory(self) -> float:
        """Seconds of all other kernels."""
        return self.of(*(kind for kind in CLASSES if kind not in (PRODUCTS, ATTENTION)))


def read_schedule(text: str, axes: dict[str, int], card: Card, hosts: int = 1) -> Schedule:
    """Reads the text of a compiled program, whose instructions stand in the order in which they are started.

    A kernel takes as long as its bytes or its products do, whichever is longer, at the rates that the card attains, and
    no less than the shortest that one takes; one runs at a time. A collective runs beside kernels from where it starts
    to where its result is waited for, one at a time too; what is left of it there is exposed. One that isn't
    asynchronous is exposed from begin to end. Of a conditional the longest branch counts.

    Args:
        text: `compiled.as_text()`.
        axes: names and sizes of the mesh axes, outermost first; the program's devices are numbered in that order.
        card: the GPU.
        hosts: that the devices are on, in order.
    """
    computations, entry = parse_program(text)
    reading = _Reading(computations, axes, card, hosts)
    schedule = Schedule(seconds=reading.run(entry, 1))
    schedule.kernels = [Kernels(kind, *reading.kernels[kind]) for kind in CLASSES if reading.kernels[kind][0]]
    listed = [
        Collective(kind, over, count, size, slow, seconds, exposed)
        for (kind, over, slow), (count, size, seconds, exposed) in reading.collectives.items()
        if count
    ]
    schedule.collectives = sorted(listed, key=lambda each: -each.bytes)
    schedule.exposed = sum(each[3] for each in reading.collectives.values())
    return schedule


class _Started(NamedTuple):
    """A collective in flight: the time of its end, and the key under which it is summed."""

    end: float
    key: tuple[str, tuple[str, ...], bool]


class _Reading:
    """The sums that a walk through the program makes."""

    def __init__(self, computations: Computations, axes: dict[str, int], card: Card, hosts: int):
        self.computations, self.axes, self.card, self.hosts = computations, axes, card, hosts
        self.kernels: dict[str, tuple[int, int, int, float]] = defaultdict(lambda: (0, 0, 0, 0.0))
        self.collectives: dict[tuple, tuple[int, float, float, float]] = defaultdict(lambda: (0, 0.0, 0.0, 0.0))

    def run(self, name: str, times: int) -> float:
        """Seconds of one run of a computation; what is in it is summed `times` over."""
        clock, free, started = 0.0, 0.0, {}
        around = self.computations[name]
        for instruction in around.values():
            if instruction.opcode == "while":
                body = next(callee for how, callee in called(instruction) if how == "body")
                rounds = trips(self.computations, instruction)
                clock += rounds * self.run(body, times * rounds)
            elif instruction.opcode in ("call", "conditional"):
                longest = max(self._branches(instruction), key=lambda branch: self.run(branch, 0))
                clock += self.run(longest, times)
            elif (kind := self._kind(instruction)) is not None:
                begin = max(clock, free)
                found = self._collective(instruction, kind, times)
                if found is None:
                    continue
                seconds, key = found
                free = begin + seconds
                started[instruction.name] = _Started(free, key)
                if not instruction.opcode.endswith("-start"):
                    clock = self._wait(started.pop(instruction.name), clock, times)
            elif instruction.opcode.endswith("-done") and instruction.operands[0] in started:
                clock = self._wait(started.pop(instruction.operands[0]), clock, times)
            elif (found := kernel(instruction, around, self.computations)) is not None:
                clock += self._kernel(found, times)
        for left in started.values():
            clock = self._wait(left, clock, times)
        return clock

    def _branches(self, instruction: Instruction) -> list[str]:
        """The computations of which a call, or a conditional, runs one."""
        return [name for how, name in called(instruction) if how != "condition" and name in self.computations]

    def _kind(self, instruction: Instruction) -> str | None:
        """The kind of collective, also of one that stands in a computation of its own, which is started."""
        if instruction.opcode == "async-start":
            inner = self._wrapped(instruction)
            return None if inner is None else collective_kind(inner, "")
        return collective_kind(instruction, "")

    def _wrapped(self, instruction: Instruction) -> Instruction | None:
        inside: Computation = self.computations.get(next((name for _, name in called(instruction)), ""), {})
        return next((each for each in inside.values() if each.root), None)

    def _collective(self, instruction: Instruction, kind: str, times: int) -> tuple[float, tuple] | None:
        """Adds a collective; its seconds, and the key under which it is summed. None: it joins nothing."""
        inner = self._wrapped(instruction) if instruction.opcode == "async-start" else instruction
        found = sent(inner or instruction, kind, self.axes, self.hosts)
        if found is None:
            return None
        rate = self.card.network_rate(found.together if found.slow else None)
        seconds = max(found.bytes / rate, self.card.least_collective)
        key = kind, found.axes, found.slow
        count, size, before, exposed = self.collectives[key]
        self.collectives[key] = count + times, size + times * found.bytes, before + times * seconds, exposed
        return seconds, key

    def _wait(self, started: _Started, clock: float, times: int) -> float:
        """Waits for a collective; the time at which it is done."""
        count, size, seconds, exposed = self.collectives[started.key]
        self.collectives[started.key] = count, size, seconds, exposed + times * max(0.0, started.end - clock)
        return max(clock, started.end)

    def _kernel(self, found: Kernel, times: int) -> float:
        """Adds a kernel; its seconds."""
        multiplying = sum(each.flops / self.card.product_rate(each.dtype, each.exact) for each in found.products)
        seconds = max(multiplying, found.bytes / self.card.memory_rate, self.card.least_kernel)
        count, size, flops, before = self.kernels[found.kind]
        self.kernels[found.kind] = (
            count + times, size + times * found.bytes, flops + times * found.flops, before + times * seconds,
        )  # fmt: skip
        return seconds
