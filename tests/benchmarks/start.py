"""How long a command takes to start: `import mmjax`, `mmjax --help`, and the quickstart up to its first step.

    python -m tests.benchmarks.start --json experiments/records/start.json     # three minutes on two free cores

Every figure is of whole processes, from their start: seconds by the clock, and CPU-seconds of the process and of those
that it started and waited for. The first step is measured with nothing there (`cold`: the demo data is built, all is
compiled), with the data alone (`built`), and with the compiled programs of a run before it (`warm`). Only the last two
depend on nothing but mmjax and jax; all depend on what else the machine does, whose load is in the record.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from tests.benchmarks.machine import machine

EXPERIMENT = "experiments/quickstart.py"
SAID = "first step after"  # what the loop says then
GOALS = {"import": 0.1, "help": 0.3, "cold": 30.0, "warm": 10.0}  # seconds by the clock
PACKAGES = ("jax", "jaxlib", "flax", "fiddle", "grain", "optax", "orbax-checkpoint", "tensorflow-datasets")

Figures = dict[str, float]


def ended(words: list[str]) -> Figures:
    """Seconds of a command until it has ended."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed with {process.returncode}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime}


def said(words: list[str], environment: dict[str, str]) -> Figures:
    """Seconds of a command until it says SAID; it is killed then."""
    began = time.perf_counter()
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if SAID in line:
                wall, cpu = time.perf_counter() - began, cpu_of(process.pid)
                process.kill()
                return {"wall": wall, "cpu": cpu}
    raise RuntimeError(f"{' '.join(words)} took no step:\n{''.join(lines)}")


def cpu_of(pid: int) -> float:
    """CPU-seconds of a process that runs, and of those that it has waited for: proc(5)."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, told[11:15])) / os.sysconf("SC_CLK_TCK")


def first_steps(folder: Path, warm: int) -> dict[str, list[Figures]]:
    """The quickstart's first step: cold, with its data built, and `warm` times warm. The folder is to be empty."""
    cache, data, run = folder / "cache", folder / "data", folder / "run"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TFDS_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # as it is for who has set nothing
    words = [sys.executable, "-m", "mmjax", "train", EXPERIMENT, "--workdir", str(run)]
    found: dict[str, list[Figures]] = {}
    for name in ("cold", "built", *["warm"] * warm):
        if name == "built":
            shutil.rmtree(cache)
        shutil.rmtree(run, ignore_errors=True)
        found.setdefault(name, []).append(said(words, environment))
        tell(name, found[name][-1])
    return found


def tell(name: str, figures: Figures) -> None:
    print(f"{name:8s} {figures['wall']:8.2f} s  {figures['cpu']:8.2f} CPU-s", flush=True)


def summary(runs: dict[str, list[Figures]]) -> list[dict[str, float | str]]:
    """Medians, beside the goals."""
    lines = []
    for name, each in runs.items():
        middle = {f"{kind}_seconds": round(statistics.median(one[kind] for one in each), 3) for kind in ("wall", "cpu")}
        goal = {"goal_wall_seconds": GOALS[name]} if name in GOALS else {}
        lines.append({"what": name, "runs": len(each), **middle, **goal})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of import and --help, whose median is taken")
    parser.add_argument("--warm", type=int, default=3, help="warm first steps")
    parser.add_argument("--note", help="what else the machine did")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = [os.getloadavg()[0]]
    runs: dict[str, list[Figures]] = {}
    for name, words in (("import", ["-c", "import mmjax"]), ("help", ["-m", "mmjax", "--help"])):
        runs[name] = [ended([sys.executable, *words]) for _ in range(arguments.runs)]
        tell(name, runs[name][-1])
    with tempfile.TemporaryDirectory() as folder:
        runs |= first_steps(Path(folder), arguments.warm)
    load.append(os.getloadavg()[0])
    lines = summary(runs)
    print("\n| | seconds | CPU-seconds | goal |\n|---|---|---|---|")
    for line in lines:
        print(
            f"| {line['what']} | {line['wall_seconds']} | {line['cpu_seconds']} | {line.get('goal_wall_seconds', '')} |"
        )
    record = {
        "command": "python -m tests.benchmarks.start",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "load": {"before": load[0], "after": load[1]},
        **({"note": arguments.note} if arguments.note else {}),
        "results": lines,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
