"""What decoding of videos costs beside torchcodec and decord, each with one thread.

python -m tests.benchmarks.video_decoding --json experiments/records/video_decoding.json

A clip of 20 s (H.264 with three B-frames and a keyframe in 250 frames at most, as x264 sets them; and one with a
keyframe a second) in noise that moves, at 360 and at 1,080 lines, is read by each side that can be imported, in turns
in one process: `random` is eight frames at even distances, `sequential` the first 150, both in full size, as RGB in
memory; `small` is the eight frames with a shorter side of 224. Opening the file counts. Ratios are of neighbours, and
the middle one counts; `goal` is of the best peer. torchcodec needs FFmpeg's shared libraries: those that PyAV brings
do, where LD_LIBRARY_PATH finds them under their plain names.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.decoding.video_frames import frames_at
from tests.benchmarks.machine import machine
from tests.data.decoding.clips import Clip

GOAL, ROUNDS, RATE, SECONDS, FIRST, SHORT = 0.9, 5, 25, 20, 150, 224
SIZES = {"360": (640, 360), "1080": (1920, 1080)}
KEYFRAMES = {"": {"g": "250"}, " of short groups": {"g": "25"}}
ASKED = (np.arange(8) + 0.5) * SECONDS / 8

Side = dict[str, Callable[[str], np.ndarray]]


def moving(number: int, width: int, height: int) -> np.ndarray:
    """Coarse noise that moves to the left, with a little of its own in each picture."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    picture = np.roll(coarse.repeat(20, 0).repeat(20, 1), 4 * number, 1)
    return picture[:height, :width] // 2 + np.random.default_rng(number).integers(0, 16, (height, width, 3), np.uint8)


def ours() -> Side:
    return {
        "random": lambda path: frames_at(path, ASKED)[0],
        "sequential": lambda path: frames_at(path, np.arange(FIRST) / RATE)[0],
        "small": lambda path: frames_at(path, ASKED, short_side=SHORT)[0],
    }


def torchcodec() -> Side:
    from torchcodec.decoders import VideoDecoder  # type: ignore

    def read(path: str) -> Any:
        return VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate")

    return {
        "random": lambda path: read(path).get_frames_played_at(ASKED.tolist()).data.numpy(),
        "sequential": lambda path: read(path).get_frames_in_range(0, FIRST).data.numpy(),
    }


def decord() -> Side:
    from decord import VideoReader  # type: ignore

    def small(path: str) -> Any:
        return VideoReader(path, num_threads=1, width=round(SHORT * 16 / 9), height=SHORT)

    indices = [int(time * RATE) for time in ASKED]
    return {
        "random": lambda path: VideoReader(path, num_threads=1).get_batch(indices).asnumpy(),
        "sequential": lambda path: VideoReader(path, num_threads=1).get_batch(range(FIRST)).asnumpy(),
        "small": lambda path: small(path).get_batch(indices).asnumpy(),
    }


def sides() -> tuple[dict[str, Side], dict[str, str]]:
    """Those that can be imported, and why the others can't."""
    found, missing = {"mmjax": ours()}, {}
    for make in (torchcodec, decord):
        try:
            found[make.__name__] = make()
        except Exception as error:  # what a library that lacks its own raises
            missing[make.__name__] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return found, missing


def compared(path: str, found: dict[str, Side], rounds: int) -> dict[str, Any]:
    """Frames a second of CPU, and ours beside the best peer's."""
    told: dict[str, Any] = {}
    for way in ("random", "sequential", "small"):
        times: dict[str, list[float]] = {name: [] for name, side in found.items() if way in side}
        count = {name: len(found[name][way](path)) for name in times}
        for _ in range(rounds):
            for name, each in times.items():
                start = time.process_time()
                found[name][way](path)
                each.append(time.process_time() - start)
        ratios = {
            name: statistics.median(other / own for own, other in zip(times["mmjax"], each, strict=True))
            for name, each in times.items()
            if name != "mmjax"
        }
        told[way] = {
            "frames_a_cpu_second": {
                name: round(count[name] / statistics.median(each), 1) for name, each in times.items()
            },
            "of": {name: round(ratio, 3) for name, ratio in ratios.items()},
            "of_the_best": round(min(ratios.values()), 3) if ratios else None,
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="lines; default: all")
    arguments = parser.parse_args()
    found, missing = sides()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for lines in arguments.sizes:
            for name, options in KEYFRAMES.items():
                path = Path(folder) / f"{lines}{name}.mp4"
                clip = Clip(
                    frames=SECONDS * RATE,
                    size=SIZES[lines],
                    options={"preset": "veryfast", "crf": "28", "bf": "3", **options},
                    picture=moving,
                )
                clip.made(path)
                results[path.stem] = {"bytes": os.path.getsize(path), **compared(str(path), found, arguments.rounds)}
                path.unlink()
    names = [name for name in ("av", "numpy", "torch", *found) if name != "mmjax" and name in sys.modules]
    record = {
        "command": "python -m tests.benchmarks.video_decoding " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: sys.modules[name].__version__ for name in names},
        "goal": GOAL,
        "missing": missing,
        "clips": results,
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
