"""Findings made by hand: vectors, columns, pictures and sounds, with no model."""

import io
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.report.findings import Findings

ATTACK = '</script><script>document.title="broken"</script><img src=x onerror="document.title=\'broken\'">'


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def made(count: int = 20, modalities: tuple[str, ...] = ("image", "text", "audio"), **columns: list[Any]) -> Findings:
    """Each example has a vector of its own, with some noise in each modality; every seventh has no sound."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(count, 8))
    embeddings = {name: unit(shared + 0.5 * rng.normal(size=shared.shape)) for name in modalities}
    valid = {name: np.ones(count, bool) for name in modalities}
    if "audio" in valid:
        valid["audio"][::7] = False
    kinds = np.arange(count) % 3
    given: dict[str, list[Any]] = {
        "id": [f"{i}.png" for i in range(count)],
        "text": [f"thing {i}" for i in range(count)],
        "kind": [f"kind {k}" for k in kinds],
        **columns,
    }
    classes = tuple(dict.fromkeys(given["kind"]))
    truth = np.array([classes.index(kind) for kind in given["kind"]])
    found = np.where(np.arange(count) % 5 == 0, (truth + 1) % len(classes), truth)
    classified = Classified("zeroshot/kind", "kind", classes, np.arange(count), truth, found)
    numbers = {"retrieval/image->text/R@1": 0.25, "retrieval/text->image/R@1": 0.75, "zeroshot/kind/top1": 0.8}
    return Findings(Embedded(embeddings, valid, given, split="test"), numbers, [classified], None, raw)


def raw(row: int, column: str) -> bytes:
    return png(row) if column == "image" else wav(row)


def png(row: int, side: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (row * 40 % 255, 90, 160)).save(stream, "PNG")
    return stream.getvalue()


def wav(row: int, seconds: float = 0.5, rate: int = 8_000) -> bytes:
    stream = io.BytesIO()
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(stream, 0.3 * np.sin(2 * np.pi * (300 + 20 * row) * time), rate, format="WAV")
    return stream.getvalue()
