"""What must be set before jax is imported: eight fake devices, little optimisation, and a cache of compiled code."""

import contextlib
import ctypes
import gc
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest

PLATFORM = os.environ.get("MMJAX_TEST_PLATFORM", "cpu")  # "cuda" for tests/gpu
os.environ["JAX_PLATFORMS"] = "cpu" if PLATFORM == "cpu" else f"{PLATFORM},cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# How long one of the fake devices may wait for the others, which on a busy machine is longer than 40 s.
os.environ["XLA_FLAGS"] += " --xla_cpu_collective_call_terminate_timeout_seconds=600"
if tuple(map(int, version("jax").split(".")[:2])) < (0, 11):  # jax 0.12 refuses the second
    # Compiling is most of the suite's time, and the workers have the cores already: code isn't split up to be compiled.
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"  # the older ones compile in half the time
if PLATFORM == "cpu":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of machine code: it would take a third of the time
else:
    os.environ["XLA_FLAGS"] += " --xla_gpu_deterministic_ops=true"  # what goes on is compared to the bit
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # tests start processes beside each other
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # a line for each operation: a twentieth of the time
CACHE = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "mmjax-test-compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

MOST_RESIDENT = 3 << 30  # bytes of a worker between two files: three of them and pyright are to fit into 16 GiB
gc.set_threshold(20_000, 20, 50)  # what jax holds of compiled programs is gone through less often

pytest_plugins = ["tests.trained", "tests.programs"]  # what tests share: tiny runs, and compiled programs


PROCESSES = ("tests/faults/", "tests/multiprocess/", "tests/test_smoke.py", "tests/train/test_supervise.py")
# What takes longest comes first, so that no worker is left with it at the end; what mostly waits, beside what computes.
FIRST = (*PROCESSES, "tests/test_notebooks.py", "tests/runtime/test_launch_", "tests/train/", "tests/experiments/")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`: a file's tests stay together, for its fixtures, and the tests that start processes of
    their own run one after the other, so that no more of them are there at a time than cores bear."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = "processes" if file.startswith(PROCESSES) else file
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: next((i for i, part in enumerate(FIRST) if item.nodeid.startswith(part)), len(FIRST)))


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_let_go() -> Iterator[None]:
    """A worker that has compiled thousands of programs holds gigabytes of them, of which the next file needs none."""
    yield
    if resident_bytes() > MOST_RESIDENT:
        import jax

        from tests.programs import MADE

        MADE.clear()
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_bytes() -> int:
    """The memory that this process holds; 0 where the system doesn't say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the minutes went: fixtures and tests, by folder (collecting, and so importing, is not in them)."""
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[str(PurePosixPath(report.nodeid.partition("::")[0]).parent)] += report.duration
    terminalreporter.section("minutes by folder")
    for folder in sorted(seconds):
        terminalreporter.write_line(f"{seconds[folder] / 60:6.1f}  {folder}")
    terminalreporter.write_line(f"{sum(seconds.values()) / 60:6.1f}  in all")
