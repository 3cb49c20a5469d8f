"""The machine that a benchmark runs on: what it is, and what a process takes of its memory."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int]:
    """What it ran on, with no name of the machine itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return {"processor": model, "cores": cores, "system": platform.system(), "python": platform.python_version()}


def most_memory() -> int:
    """Bytes of memory that this process held at most (not ru_maxrss: a child starts with its parent's)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
