"""What ranking costs beside the matrix product that it can't do without.

python -m tests.benchmarks.evaluate --json experiments/records/evaluate.json

Retrieval both ways over cached embeddings, the whole evaluator with its metrics, takes turns in one process with the
bare product of the same embeddings in one direction; ratios are of neighbours, and the middle one counts. Both use
numpy's BLAS and as many threads. CPU seconds tell more than the clock where the machine is shared. `same`: captions
that five examples share.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.evaluators.embedded import Embedded
from mmjax.evaluators.retrieval import Retrieval
from tests.benchmarks.machine import machine

COUNT, ROUNDS = 10_000, 5
WIDTHS = (256, 512)
GOAL = 2.0


def cached(width: int, count: int = COUNT) -> Embedded:
    """Embeddings in which a caption finds its picture now and then."""
    rng = np.random.default_rng(width)
    core = rng.normal(size=(count, width))
    vectors = {}
    for modality in ("image", "text"):
        x = core + 3 * rng.normal(size=core.shape)
        vectors[modality] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    captions = {"text": [f"caption {i // 5}" for i in range(count)]}
    return Embedded(vectors, {modality: np.ones(count, bool) for modality in vectors}, captions)


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of the processors."""
    start, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - used


def measured(width: int, count: int = COUNT, rounds: int = ROUNDS) -> dict[str, Any]:
    embedded = cached(width, count)
    image, text = embedded.embeddings["image"], embedded.embeddings["text"]
    scores = np.empty((count, count), np.float32)

    def no_text(strings: Any) -> Any:
        raise AssertionError("retrieval asks for no prompts")

    sides: dict[str, Callable[[], Any]] = {
        "product": lambda: np.matmul(image, text.T, out=scores),
        "retrieval": lambda: Retrieval()(embedded, no_text),
        "same": lambda: Retrieval(same="text")(embedded, no_text),
    }
    times = {name: [seconds(call)] for name, call in sides.items()}  # not counted: pages are touched
    for _ in range(rounds):
        for name, call in sides.items():
            times[name].append(seconds(call))
    times = {name: found[1:] for name, found in times.items()}
    kinds = ("seconds", "cpu_seconds")
    ratios = {
        f"{kind}_to_product": {
            name: statistics.median(x[i] / y[i] for x, y in zip(times[name], times["product"], strict=True))
            for name in ("retrieval", "same")
        }
        for i, kind in enumerate(kinds)
    }
    middle = {
        kind: {name: statistics.median(x[i] for x in found) for name, found in times.items()}
        for i, kind in enumerate(kinds)
    }
    return {
        "embeddings": [count, width],
        **middle,
        **ratios,
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = {
        "command": "python -m tests.benchmarks.evaluate " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"numpy": np.__version__},
        "results": [],
    }
    for width in WIDTHS:
        record["results"].append(measured(width))
        print(json.dumps(record["results"][-1], indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
