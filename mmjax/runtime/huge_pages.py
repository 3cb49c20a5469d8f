"""Memory in huge pages: a training step on a CPU makes its arrays anew each time, and the kernel a page at a time.

With pages of 2 MB instead of 4 KB a step takes a tenth less (ViT-S/16 on two cores: `tests.benchmarks.step`). Most
systems give them to programs that ask, and glibc asks where GLIBC_TUNABLES says so when a program starts ("Memory
Allocation Tunables" in its manual).
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE, NAME, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb", "1"
POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SINCE = (2, 35)  # of glibc


def tunables(environment: Mapping[str, str]) -> str | None:
    """The GLIBC_TUNABLES with which a program gets huge pages that wouldn't without. None: it gets them anyway or never
    will, or `environment` has its own word on it."""
    given = environment.get(VARIABLE, "")
    if NAME in given or not _on_request():
        return None
    return ":".join(filter(None, (given, f"{NAME}={VALUE}")))


def restart() -> None:
    """Starts this program anew, as the same process and with the same arguments, with huge pages; where it has them or
    can't have them, nothing happens."""
    if (value := tunables(os.environ)) is not None:
        with contextlib.suppress(OSError):  # it goes on without
            arguments = [sys.executable, *sys.orig_argv[1:]]
            os.execve(sys.executable, arguments, {**os.environ, VARIABLE: value})


def _on_request() -> bool:
    """Whether the system gives huge pages to programs that ask for them, and glibc can."""
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        numbers = tuple(map(int, version.split(".")[:2]))
        return library == "glibc" and numbers >= SINCE and "[madvise]" in POLICY.read_text()
    except (OSError, ValueError):  # another system, or another C library
        return False
