"""The result of a plan: numbers, and others derived from them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mmjax.models.layers.attentions import Choice
from mmjax.train.plan.collectives import Collective
from mmjax.train.plan.input_cost import Reading
from mmjax.train.plan.schedule import Kernels


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, in one step. `limit`: its memory. Where the step did not fit, `temporaries` is the
    compiler's own figure of the bytes needed, and `code` unknown (0).
    """

    parameters: int
    optimizer: int
    average: int
    batch: int
    other: int
    temporaries: int
    code: int
    limit: int

    @property
    def needed(self) -> int:
        """The bytes needed in all."""
        return sum(value for name, value in dataclasses.asdict(self).items() if name != "limit")


@dataclass(frozen=True)
class Seconds:
    """The seconds of one step, by a roofline: products at the chip's peak (or at the speed at which memory gives what
    they read, if that takes longer), after them everything else at the speed of memory, the network beside all of it.

    On GPUs the compiled schedule is gone through instead, kernel by kernel, at the rates that `gpus.toml` says a card
    attains. exposed: of the network's, what the step waits for there.
    """

    products: float
    memory: float
    network: float
    exposed: float = 0.0

    @property
    def step(self) -> float:
        """The seconds of a step."""
        return max(self.products + self.memory + self.exposed, self.network)


@dataclass(frozen=True)
class Remedy:
    """Overrides with which an experiment that doesn't fit was compiled again, and whether it fits with them."""

    overrides: tuple[str, ...]
    fits: bool
    needed: int


@dataclass(frozen=True)
class Plan:
    """The results of `mmjax plan`. Bytes and FLOPs are those of one step.

    flops: of all devices, as the step runs, recomputation included; model_flops: without recomputation, as the MFU has
    it. attention: what `auto` took. seconds, collectives, kernels: None where the compiler refused the step, which
    doesn't fit. kernels: of a GPU, or of a TPU: there their seconds are those of moving their bytes, and FLOPs aren't
    known. scheduled: whether the seconds are those of the schedule, as on GPUs.
    """

    experiment: str
    topology: str
    slices: int
    chips: int
    devices: int
    hosts: int
    mesh: dict[str, int]
    batch_size: int
    microbatches: int
    steps: int
    fits: bool
    memory: Memory
    flops: int
    model_flops: int
    reading: Reading
    peak: float  # FLOP/s, of one device
    host_cores: float  # of one device's share in its host
    attention: list[Choice] = field(default_factory=list)
    collectives: list[Collective] | None = None
    kernels: list[Kernels] | None = None
    seconds: Seconds | None = None
    scheduled: bool = False
    remedies: list[Remedy] = field(default_factory=list)

    @property
    def mfu(self) -> float:
        """Model FLOPs as a share of the chips' peak in the time of a step."""
        assert self.seconds is not None
        return self.model_flops / self.devices / self.peak / self.seconds.step

    @property
    def rate(self) -> float:
        """Examples a second, over all hosts."""
        assert self.seconds is not None
        return self.batch_size / self.seconds.step

    @property
    def cores(self) -> tuple[float, float]:
        """The cores that each host needs to read this many examples, and the cores that it has."""
        return self.rate / self.hosts * self.reading.seconds, self.host_cores * self.devices / self.hosts

    def numbers(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        values = dataclasses.asdict(self)
        values["attention"] = [choice._asdict() for choice in self.attention]
        values["memory"]["needed"] = self.memory.needed
        if self.seconds is not None:
            needs, has = self.cores
            values |= {
                "expected_step_seconds": self.seconds.step,
                "mfu": self.mfu,
                "examples_per_second": self.rate,
                "examples_per_day": self.rate * 86_400,
                "hours": self.steps * self.seconds.step / 3_600,
                "chip_hours": self.steps * self.seconds.step / 3_600 * self.chips,
                "host_examples_per_second": self.rate / self.hosts,
                "host_bytes_per_second": self.rate / self.hosts * self.reading.bytes,
                "host_cores_needed": needs,
                "host_cores": has,
                "input_bound": needs > has,
            }
        return values


@dataclass(frozen=True)
class Trial:
    """A setting (overrides) that a tuning compiled. plan: None where that failed, for the reason `error`. taken: the
    seconds that it took to compile."""

    setting: tuple[str, ...]
    plan: Plan | None
    error: str = ""
    taken: float = 0.0

    @property
    def seconds(self) -> float | None:
        """The seconds of a step; None where it doesn't fit, or they aren't known."""
        if self.plan is None or not self.plan.fits or self.plan.seconds is None:
            return None
        return self.plan.seconds.step

    def faster(self, than: "Trial") -> bool:
        """True if this fits and takes less time, or the other doesn't fit."""
        return self.seconds is not None and (than.seconds is None or self.seconds < than.seconds)

    def numbers(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        found = {"overrides": self.setting, "error": self.error, "planned_in_seconds": round(self.taken, 1)}
        return found if self.plan is None else found | self.plan.numbers()
