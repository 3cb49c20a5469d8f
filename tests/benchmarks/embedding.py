"""What `Model.embed` costs beside the bare tower: pictures as arrays, as preprocessed floats, as files.

python -m tests.benchmarks.embedding --json experiments/records/embedding.json

The quickstart's image tower (fresh parameters) and 512 drawings of its size. All sides take turns in one process, round
after round; ratios are of neighbours, and the middle one counts. `tower`: the compiled tower alone, on batches that lie
on the device, which no path can beat. `decode`: the files read and decoded by the same threads, and no tower. CPU
seconds tell more than the clock where the machine is shared; `full`: what a path from files can reach of the tower
where no core is ever idle, tower / (tower + decode) in CPU seconds. The first call of each dtype compiles, and is told
apart.
"""

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.inference.model import Model
from mmjax.inference.read_ahead import rows
from mmjax.interop.bundle import Bundle, stand_in, variables_of
from mmjax.runtime.mesh import put
from tests.benchmarks.machine import machine

EXPERIMENT, SIDE, COUNT, BATCH, ROUNDS = "experiments/quickstart.py:contrastive_only", 64, 512, 64, 21
GOAL = 0.8  # of the bare tower, from files


def picture_model() -> Model:
    """The image tower of the experiment, with parameters as good as any."""
    config, rng = load_experiment(EXPERIMENT), np.random.default_rng(0)
    alone = stand_in({"image": config.towers["image"]}, {}, {"image": config.data.transforms["image"]})
    variables = jax.tree.map(lambda s: (0.02 * rng.normal(size=s.shape)).astype(s.dtype), variables_of(build(alone)))
    return Model(Bundle(alone, variables, {}, EXPERIMENT), batch_size=BATCH)


def drawings(folder: Path, count: int) -> list[Path]:
    """PNG files of flat shapes with soft edges, 2 KB each, as emoji are."""
    rng, files = np.random.default_rng(0), []
    for i in range(count):
        large = Image.new("RGB", (4 * SIDE, 4 * SIDE), "white")
        pen = ImageDraw.Draw(large)
        for _ in range(8):
            x, y, width, height = rng.integers(0, 3 * SIDE, 4)
            colour = tuple(int(level) for level in rng.integers(0, 256, 3))
            pen.ellipse([int(x), int(y), int(x + 20 + width // 2), int(y + 20 + height // 2)], colour, "black", 6)
        files.append(folder / f"{i}.png")
        large.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(files[-1])
    return files


def timed(call: Callable[[], Any]) -> dict[str, float]:
    start, used = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}


def measured(folder: Path, count: int = COUNT, rounds: int = ROUNDS) -> dict[str, Any]:
    model, files = picture_model(), drawings(folder, count)
    tower, embedder = model.towers["image"], model._embedder
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    floats = ((pixels / 255 - np.array(tower.mean)) / np.array(tower.std)).astype(np.float32)
    first = {kind: timed(lambda given=given: model.embed(image=given[:BATCH]))["seconds"]
             for kind, given in (("uint8", pixels), ("float32", floats))}  # fmt: skip
    there = [put({"image": pixels[i : i + BATCH]}, embedder._mesh) for i in range(0, count, BATCH)]
    sides: dict[str, Callable[[], Any]] = {
        "tower": lambda: jax.block_until_ready([embedder._embed(embedder._variables, batch) for batch in there]),
        "uint8": lambda: model.embed(image=pixels),
        "float32": lambda: model.embed(image=floats),
        "files": lambda: model.embed(image=files),
        "decode": lambda: list(rows(model._inputs, "image", files, BATCH, False)),
    }
    for call in sides.values():
        call()
    times = [{name: timed(call) for name, call in sides.items()} for _ in range(rounds)]
    found: dict[str, Any] = {"pictures": count, "side": SIDE, "batch": BATCH, "rounds": rounds, "goal": GOAL}
    for kind in ("seconds", "cpu_seconds"):
        found[f"pictures_a_{kind.removesuffix('s')}"] = {
            name: round(count / statistics.median(each[name][kind] for each in times)) for name in sides
        }
        found[f"{kind}_of_tower"] = {
            name: round(statistics.median(each["tower"][kind] / each[name][kind] for each in times), 3)
            for name in sides.keys() - {"tower"}
        }
    cpu = [(each["tower"]["cpu_seconds"], each["decode"]["cpu_seconds"]) for each in times]
    found["full"] = round(statistics.median(tower / (tower + decode) for tower, decode in cpu), 3)
    found["cores_of_tower"] = round(
        statistics.median(each["tower"]["cpu_seconds"] / each["tower"]["seconds"] for each in times), 2
    )
    found["first_call_seconds"] = {kind: round(seconds, 2) for kind, seconds in first.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), rounds=arguments.rounds)
    record = {
        "command": "python -m tests.benchmarks.embedding " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy", "pillow")},
        "of": EXPERIMENT,
        **found,
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
