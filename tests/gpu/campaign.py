"""All that a short lease of a GPU is for, in order of worth: speed beside peers, correctness, a trace, losses.

python -m tests.gpu.campaign --minutes 9                # on an H100 or H200
python -m tests.gpu.campaign --toy --minutes 5          # all of it at toy size, on a CPU
python -m tests.gpu.campaign --parts trace losses       # some of it
python -m tests.gpu.campaign --list

Each part is a process of its own with a limit of its own, so one that fails or hangs costs no other; what a part needs
and isn't there (a card, a package, time) is the reason with which it is skipped. The record is written again after each
figure, so one that is cut (SIGTERM, Ctrl-C, its own clock) loses nothing; parts that stand in it as done aren't
repeated. Peers: `pip install torch==2.13.0 open_clip_torch inf_cl`, or wheels of them that are carried along.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import machine

RECORD = Path(__file__).parents[2] / "experiments/records/gpu_campaign.json"
PACKAGES = ("jax", "jaxlib", "flax", "torch", "triton", "open_clip_torch", "inf_cl")
STOPPING = 10.0  # seconds that a part which is told to end has for it
LEAST = 20.0  # seconds below which no part is begun: it would only start
PATIENCE = 5  # by which a toy's limits are longer: its CPU may have other work
# Flags of XLA that JAX's page of GPU performance tips names and that act on one card, and two that tell what the
# compiler's own kernels and its command buffers are worth.
FLAGS = (
    "--xla_gpu_triton_gemm_any=true",
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_enable_triton_gemm=false",
    "--xla_gpu_enable_command_buffer=",
)


@dataclass(frozen=True)
class Part:
    """A process of the campaign. words: what Python runs. limit: seconds. needs: `gpu`, or a package that it imports.
    flags: for XLA."""

    name: str
    words: tuple[str, ...]
    limit: float
    needs: tuple[str, ...] = ()
    flags: str = ""


def steps(name: str, size: str, *sides: str, limit: float, needs: tuple[str, ...] = (), flags: str = "") -> Part:
    return Part(name, ("-m", "tests.gpu.campaign_parts", "steps", size, *sides), limit, needs, flags)


def parts(toy: bool) -> list[Part]:
    """The parts, what is worth most first."""
    b16, l14, many, few = ("toy", "toy", "toy@16", "toy@4") if toy else ("b16", "l14@256", "b16@1024", "b16@256")
    ours = ("bare products", "mmjax", "mmjax stored unrolled", "mmjax unrolled")
    also = ("mmjax",) if toy else ours  # a toy is one size, whatever it stands for
    losses = ("256", "512") if toy else ("32768", "65536", "131072", "262144")
    peers = "tests.benchmarks.contrastive"
    found = [
        steps("b16", b16, *ours, limit=240),
        Part("tests", ("-m", "pytest", "-q", "-x", "tests/gpu/test_gpu.py"), 150, ("gpu", "pytest")),
        steps("b16 peers", b16, "open_clip compiled", "open_clip", limit=120, needs=("torch", "open_clip")),
        Part("trace", ("-m", "tests.gpu.campaign_parts", "trace", b16, "mmjax"), 90),
        steps("l14", l14, *also, limit=300),
        steps("l14 peers", l14, "open_clip compiled", limit=120, needs=("torch", "open_clip")),
        Part("losses", ("-m", peers, "--most", "70", "--peers", "inf_cl", "--sizes", *losses), 150),
        steps("b16 remat", b16, "mmjax stored", "mmjax remat unrolled", "mmjax remat", limit=180),
        steps("b16 half", b16, "mmjax half", "open_clip compiled half", limit=120),
        steps("b16 large", many, *also, limit=240),
        steps("b16 small", few, *also, limit=200),
        *(steps(f"flag {flag}", b16, "mmjax", limit=80, flags=flag) for flag in FLAGS),
    ]  # fmt: skip
    return [dataclasses.replace(part, limit=PATIENCE * part.limit) for part in found] if toy else found


class Campaign:
    """Runs parts one after another until its time is up, and keeps a record.

    Args:
        path: of the record; what stands there as done is not repeated.
        minutes: for all parts.
        has: whether what a part needs is there.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        path: Path,
        minutes: float,
        has: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        about: dict[str, Any] | None = None,
    ):
        self._path, self._has, self._clock = path, has, clock
        self._began = clock()
        self._end = self._began + 60 * minutes
        self._compiled = tempfile.TemporaryDirectory()  # programs that parts share
        self._process: subprocess.Popen[str] | None = None
        self._stopped: str | None = None
        old = json.loads(path.read_text()) if path.exists() else {}
        done = [each for each in old.get("parts", []) if each["ended"] == "done"]
        self.record: dict[str, Any] = {**(about or {}), "ended": None, "parts": done}

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock()

    def run(self, wanted: Sequence[Part]) -> None:
        """Runs those of the parts that aren't done; `record["ended"]` says at last why it ended."""
        for part in wanted:
            if self._stopped:
                break
            if any(each["name"] == part.name for each in self.record["parts"]):
                self._say(f"{part.name}: stands in the record")
                continue
            found: dict[str, Any] = {"name": part.name, "command": " ".join(["python", *part.words]), "rows": []}
            self.record["parts"].append(found)
            if reason := self._reason(part):
                found["ended"] = f"skipped: {reason}"
            else:
                found["ended"] = "begun"
                self._save()
                self._run(part, found)
            self._say(f"{part.name}: {found['ended']}")
            self._save()
        self.record["ended"] = self._stopped or ("time was up" if self.left < LEAST else "done")
        self._save()

    def stop(self, reason: str) -> None:
        """Ends the part that runs, and begins no other: for a signal's handler."""
        self._stopped = reason
        threading.Thread(target=self._kill).start()  # the record is written where rows are read, and there alone

    def _reason(self, part: Part) -> str | None:
        missing = [need for need in part.needs if not self._has(need)]
        if missing:
            return f"there is no {', no '.join(missing)}"
        return f"{self.left:.0f} s are left" if self.left < LEAST else None

    def _run(self, part: Part, found: dict[str, Any]) -> None:
        """Runs a part, keeps each line that is a JSON object as a row, and ends it at its limit."""
        began, limit = self._clock(), min(part.limit, self.left)
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
        environment["JAX_COMPILATION_CACHE_DIR"] = self._compiled.name
        environment["MMJAX_TEST_PLATFORM"] = "cuda" if self._has("gpu") else "cpu"
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {part.flags}".strip()
        self._process = subprocess.Popen(
            [sys.executable, *part.words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        over = threading.Event()

        def cut() -> None:
            over.set()
            self._kill()

        timer = threading.Timer(limit, cut)
        timer.start()
        if self._stopped:  # just now
            self._kill()
        last = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            last = line.strip() or last
            self._say(f"{part.name} | {line.rstrip()}")
            if (row := as_row(line)) is not None:
                found["rows"].append(row)
                self._save()
        code = self._process.wait()
        timer.cancel()
        self._kill()  # children of it that are left
        self._process = None
        found |= {"seconds": round(self._clock() - began, 1), "last": last[-300:]}
        if self._stopped:
            found["ended"] = f"cut: {self._stopped}"
        elif over.is_set():
            found["ended"] = f"cut: after {limit:.0f} s"
        else:
            found["ended"] = "done" if code == 0 else f"failed with {code}"

    def _kill(self) -> None:
        """Ends the part's process and all of its children, those that don't listen by force."""
        if (process := self._process) is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            end = time.monotonic() + STOPPING
            while time.monotonic() < end:  # until no process of its group is there
                time.sleep(0.05)
                process.poll()
                os.killpg(process.pid, 0)
            os.killpg(process.pid, signal.SIGKILL)

    def _save(self) -> None:
        """Writes the record whole, or leaves the old one."""
        self.record["seconds"] = round(self._clock() - self._began, 1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_text(json.dumps(self.record, indent=1) + "\n")
        beside.replace(self._path)

    def _say(self, text: str) -> None:
        print(f"[{self._clock() - self._began:5.0f} s] {text}", flush=True)


def as_row(line: str) -> dict[str, Any] | None:
    """A line's JSON object, or None where it isn't one."""
    if not line.startswith("{"):
        return None
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def has(need: str) -> bool:
    """Whether there is a GPU (`gpu`; asked of its driver, for a process that asks jax holds the card), or a package."""
    if need != "gpu":
        return importlib.util.find_spec(need) is not None
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "GPU 0" in found.stdout


def about(toy: bool) -> dict[str, Any]:
    """What the record says of the machine and the packages."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "command": "python -m tests.gpu.campaign " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions,
        "toy": toy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these; --list names them")
    parser.add_argument("--toy", action="store_true", help="at toy size, and on a CPU where there is no GPU")
    parser.add_argument("--list", action="store_true", help="name the parts and end")
    parser.add_argument("--json", type=Path, help="the record; by default the committed one, a new one with --toy")
    arguments = parser.parse_args()
    wanted = parts(arguments.toy)
    if arguments.list:
        print("\n".join(f"{part.name}: python {' '.join(part.words)} {part.flags}".rstrip() for part in wanted))
        return
    if arguments.parts:
        names = {part.name for part in wanted}
        if unknown := [name for name in arguments.parts if name not in names]:
            raise SystemExit(f"Error: there is no part {unknown[0]!r}; there are {', '.join(sorted(names))}")
        wanted = [part for part in wanted if part.name in arguments.parts]
    if not has("gpu") and not arguments.toy:
        raise SystemExit("Error: there is no NVIDIA GPU (nvidia-smi finds none): run it where one is, or with --toy")
    path = arguments.json or (Path(tempfile.mkdtemp()) / "gpu_campaign.json" if arguments.toy else RECORD)
    campaign = Campaign(path, arguments.minutes, functools.cache(has), about=about(arguments.toy))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: campaign.stop(signal.Signals(number).name))
    campaign.run(wanted)
    print(f"{path}: {campaign.record['ended']}", flush=True)


if __name__ == "__main__":
    main()
