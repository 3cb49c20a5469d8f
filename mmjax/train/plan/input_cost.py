"""How fast a host's cores make batches: the experiment's own chains, timed on made-up pictures and sounds."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mmjax.data.chains import Chains, Row, untrained
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms.contract import RecordTransform, Transform

PICTURE = 512  # pixels a side; web pictures are stored about so large for training
SECONDS, RATE = 10, 44_100  # of a sound
CAPTION = 64  # bytes
LONG_ENOUGH = 0.5  # seconds of timing


@dataclass(frozen=True)
class Reading:
    """seconds: of one core, for one example. bytes: of it as it is stored. of: what was timed, in words."""

    seconds: float
    bytes: int
    of: str


def reading(
    transforms: Mapping[str, Sequence[Transform]], record_transforms: Sequence[RecordTransform] = ()
) -> Reading:
    """Times the chains of a mixture on one core of this machine, and what is done to whole records before them.

    Captions are not timed: they take microseconds. Neither are record transforms that a made-up record isn't enough
    for, which `of` says.
    """
    captioned = {"text", *untrained(transforms)}
    timed = {modality: tuple(chain) for modality, chain in transforms.items() if modality not in captioned}
    size, words = 0, []
    record: dict[str, Any] = {"id": "made up"}
    if "text" in transforms:
        size += CAPTION
        record["text"] = "a made-up caption"
    if "image" in timed:
        record["image"] = _picture()
        size += len(record["image"])
        words.append(f"a JPEG of {PICTURE}x{PICTURE}")
    if "audio" in timed:
        record["audio"] = _sound()
        size += len(record["audio"])
        words.append(f"a FLAC of {SECONDS} s at {RATE:,} Hz")
    if not words:
        return Reading(0.0, size, "captions alone")
    chains, rng = Chains(timed), np.random.default_rng(0)
    whole = RecordTransforms(record_transforms, tuple(timed))
    needed = [modality for modality in timed if modality in whole.columns(tuple(record))]

    def row() -> Row:
        return chains.row(whole(record, lambda name: rng), lambda modality: rng)

    try:
        found = row()  # the first call imports
        enough = all(found[f"{modality}_valid"] for modality in needed)
    except Exception:  # code of the user's own, which expects a record of the user's own
        if not record_transforms:
            raise
        enough = False
    if not enough and record_transforms:
        plain = reading(transforms)
        return replace(plain, of=f"{plain.of}, without the record transforms")
    assert enough, found.keys()
    done, began = 0, time.thread_time()
    while (taken := time.thread_time() - began) < LONG_ENOUGH:
        row()
        done += 1
    return Reading(taken / done, size, " and ".join(words))


def _picture() -> bytes:
    """Smooth shapes with some grain, which JPEG finds about as hard as a photograph."""
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    coarse = shapes.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.int16) + rng.normal(0, 8, (PICTURE, PICTURE, 3)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _sound() -> bytes:
    rng = np.random.default_rng(0)
    time_axis = np.arange(SECONDS * RATE) / RATE
    tones = sum(np.sin(2 * np.pi * pitch * time_axis) for pitch in (220, 554, 1_760))
    file = io.BytesIO()
    soundfile.write(file, 0.2 * tones + 0.01 * rng.standard_normal(len(time_axis)), RATE, format="FLAC")
    return file.getvalue()
