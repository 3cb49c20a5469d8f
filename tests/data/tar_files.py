"""Makes tars as webdataset and img2dataset write them, and broken ones."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image


def picture(number: int, side: int = 12) -> bytes:
    """A JPEG of its own colours."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side + 2, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def sound(number: int) -> bytes:
    """A FLAC of noise."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(number).uniform(-1, 1, 800), 16_000, format="FLAC")
    return file.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """Writes files, by name, in that order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def img2dataset_like(shard: int, count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """The files of a shard as img2dataset names them: a picture, its caption, and what is known of it."""
    files: list[tuple[str, bytes]] = []
    for number in range(first, first + count):
        key = f"{shard:05}{number:04}"
        known: Mapping[str, Any] = {"caption": f"caption {key}", "url": f"https://x/{number}", "width": 14, "key": key}
        files += [
            (f"{key}.jpg", picture(1000 * shard + number)),
            (f"{key}.json", json.dumps(known).encode()),
            (f"{key}.txt", f"caption {key}".encode()),
        ]
    return files
