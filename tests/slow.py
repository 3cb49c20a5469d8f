"""The tests that are marked `slow`, and a record of how they ended.

python -m tests.slow --json experiments/records/slow.json     # ten minutes on two cores

What stands after a -- goes to pytest. What they need beyond the suite's packages (CUDA's compiler: the extra
`plan-gpu`) they say themselves, and are skipped without it.
"""

import argparse
import datetime
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.benchmarks.machine import machine

PYTEST = ("-m", "pytest", "-m", "slow", "-n", "2", "--dist", "loadgroup")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "libtpu", "pytest")


def ended(junit: Path) -> dict[str, dict[str, Any]]:
    """Of each test, by its name: how it ended (passed, skipped, failed or error), in how many seconds, and why it was
    skipped."""
    found = {}
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('@')[0]}"
        kinds = {child.tag: child.get("message", "") for child in case}
        kind = next((kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed")
        found[name] = {"end": kind.replace("failure", "failed"), "seconds": round(float(case.get("time", 0)), 1)}
        if kind == "skipped":
            found[name]["why"] = kinds[kind]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("words", nargs="*", metavar="WORD", help="what pytest is told besides; first --, then these")
    arguments = parser.parse_args()
    words = arguments.words
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        command = [sys.executable, *PYTEST, f"--junitxml={junit}", *words]
        code = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode
        tests = ended(junit)
    versions = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    record = {
        "command": " ".join(["python -m tests.slow", *(["--", *words] if words else [])]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: versions[name] for name in PACKAGES if name in versions},
        "tests": tests,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
