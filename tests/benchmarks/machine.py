"""The machine that a benchmark runs on: what it is, and what a process takes of its memory."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int]:
    """What it ran on, with no name of the machine itself. Two processors of one name may have vector units of different
    widths, by which products differ most: the family and the widest unit are named."""
    info = Path("/proc/cpuinfo")
    said: dict[str, str] = {}  # of the first core
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        said.setdefault(name.strip(), value.strip())
    flags = said.get("flags", said.get("Features", "")).split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return {
        "processor": said.get("model name", platform.processor()), "family": said.get("cpu family", ""),
        "vectors": next((name for name in ("avx512f", "avx2", "asimd") if name in flags), ""), "cores": cores,
        "system": platform.system(), "python": platform.python_version(),
    }  # fmt: skip


def most_memory() -> int:
    """Bytes of memory that this process held at most (not ru_maxrss: a child starts with its parent's)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
