"""What ranking costs beside the matrix product that it can't do without.

python -m tests.benchmarks.evaluate --json experiments/records/evaluate.json

Retrieval both ways over cached embeddings, the whole evaluator with its metrics, takes turns in one process with the
bare product of the same embeddings in one direction; ratios are of neighbours, and the middle one counts. Both use
numpy's BLAS and as many threads. CPU seconds tell more than the clock where the machine is shared. `same`: captions
that five examples share. `command`: what `mmjax evaluate --embeddings` does once it is loaded, from files to a table.
"""

import argparse
import datetime
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mmjax import embeddings
from mmjax.data.embedding_files import Embeddings
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.from_embeddings import evaluate_embeddings
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
    captions = {"id": [str(i) for i in range(count)], "text": [f"caption {i // 5}" for i in range(count)]}
    return Embedded(vectors, {modality: np.ones(count, bool) for modality in vectors}, captions)


def written(folder: Path, embedded: Embedded) -> Path:
    """The embeddings in a folder, as `mmjax embed` writes them in one shard."""
    embeddings.write_shard(
        folder, embeddings.shard_name(0, 1), Embeddings(embedded.embeddings, embedded.valid, embedded.columns)
    )
    told = {
        "model": {"source": "none", "step": None, "digest": ""},
        "data": {"name": "none", "split": "test"},
        "modalities": {modality: vectors.shape[1] for modality, vectors in embedded.embeddings.items()},
        **{"count": len(embedded), "shards": 1, "digests": {}},
    }
    embeddings.write_manifest(folder, told)
    return folder


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """By the clock, and of the processors."""
    start, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - used


def measured(width: int, folder: Path, count: int = COUNT, rounds: int = ROUNDS) -> dict[str, Any]:
    embedded = cached(width, count)
    files, screen = written(folder, embedded), Console(file=io.StringIO())
    image, text = embedded.embeddings["image"], embedded.embeddings["text"]
    scores = np.empty((count, count), np.float32)

    def no_text(strings: Any) -> Any:
        raise AssertionError("retrieval asks for no prompts")

    sides: dict[str, Callable[[], Any]] = {
        "product": lambda: np.matmul(image, text.T, out=scores),
        "retrieval": lambda: Retrieval()(embedded, no_text),
        "same": lambda: Retrieval(same="text")(embedded, no_text),
        "command": lambda: evaluate_embeddings([files], console=screen),
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
            for name in ("retrieval", "same", "command")
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
        with tempfile.TemporaryDirectory() as folder:
            record["results"].append(measured(width, Path(folder)))
        print(json.dumps(record["results"][-1], indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
