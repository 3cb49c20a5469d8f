"""What the quickstart gives, with the masked objectives and without them in the same time: the record of three seeds.

    python -m tests.benchmarks.quickstart --seeds 0 1 2 --workdir runs/record --json experiments/records/quickstart.json
    python -m tests.benchmarks.quickstart --picture experiments/records/quickstart.png     # trains nothing

The runs are the shipped experiments, one after another, nothing changed but the seed. The JSON holds the command, date,
versions and machine, each run's seconds, and its test and validation metrics; a run that stands in it is not repeated.
The picture is the quickstart's gallery of the test split, drawn of the checkpoint in `notebooks/` (`contrastive_only`).
"""

import argparse
import datetime
import json
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from PIL import Image

from mmjax.evaluate import Gallery, evaluate_model
from mmjax.evaluate.contract import Embedded, EmbedText
from mmjax.runtime.metrics import read
from tests.benchmarks.machine import machine

NAMES = ("quickstart", "contrastive_only")
CHECKPOINT = Path("notebooks/spoken_emoji")
COLOURS = 200  # of the picture, which makes it a third as large
PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy", "sentencepiece")


@dataclass(frozen=True)
class GalleryOf(Gallery):
    """A gallery of a model that has no workdir, drawn into `folder`."""

    folder: str = "."

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        return super().__call__(replace(embedded, workdir=Path(self.folder)), embed_text)


def draw(path: Path) -> None:
    """The gallery that the quickstart draws, of `CHECKPOINT`, as a PNG of few colours."""
    with tempfile.TemporaryDirectory() as folder:
        evaluate_model(CHECKPOINT, evaluators=["retrieval", GalleryOf(folder=folder)], split="test")
        with Image.open(Path(folder) / "gallery-test.png") as picture:
            few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def run(name: str, seed: int, workdir: Path) -> dict:
    """One run, from nothing: seconds of the whole command and of the training loop's steps, and what it reached."""
    command = [sys.executable, "-m", "mmjax", "train", f"experiments/quickstart.py:{name}", f"seed={seed}"]
    began = time.perf_counter()
    subprocess.run([*command, "--workdir", str(workdir)], check=True)
    seconds = time.perf_counter() - began
    lines = read(workdir)
    last = max(line["step"] for line in lines)
    found = {line["split"]: line for line in lines if line["step"] == last and "split" in line}
    metrics = {
        split: {name: round(value, 4) for name, value in line.items() if "/" in name} for split, line in found.items()
    }
    return {"name": name, "seed": seed, "steps": last, "seconds": round(seconds), **metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--names", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--workdir", type=Path, default=Path("runs/record"))
    parser.add_argument("--json", type=Path, default=Path("experiments/records/quickstart.json"))
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the gallery of README.md, and train nothing")
    arguments = parser.parse_args()
    if arguments.picture is not None:
        draw(arguments.picture)
        return
    record = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    record |= {
        "command": shlex.join(["python", "-m", "tests.benchmarks.quickstart", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }
    runs = record.setdefault("runs", [])
    done = {(entry["name"], entry["seed"]) for entry in runs}
    for seed in arguments.seeds:
        for name in arguments.names:
            if (name, seed) not in done:
                runs.append(run(name, seed, arguments.workdir / f"{name}-{seed}"))
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
