"""Batches for MERLOT Reserve's objective, small: streams by the data's own transforms, frames and sounds at random."""

import math
from typing import Any

import numpy as np

from mmjax.data.transforms.reserve.streams import ReserveStreams
from mmjax.data.transforms.reserve.web_text import MaskSpans
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.models import Blocks, LogMel, ReserveAudio, ReserveVision
from mmjax.objectives import Reserve
from tests.data.transforms.reserve.windows import Numerals, Word, cut, numbered, window

SEGMENTS, EACH, GROUPS = 4, 3, 2
CLIPS = SEGMENTS * EACH
AUDIO_TOKENS = 2  # of a clip, beside its vector
LENGTH, WEB_SPANS, LONGEST = 28, 6, 5
SIZE, PATCH = (16, 24), 4  # a grid of 4 x 6 patches, and 2 x 3 tokens
SAMPLES = 20 * 80
MELS = LogMel(rate=8_000, window=160, hop=80, fft=256, mels=8, fmin=20.0, scale="slaney", floor=0.1, mean=math.log(0.1))
VOCAB = 600
SMALL: dict[str, Any] = {
    "width": 32, "heads": 2, "activation": "quick_gelu", "norm_eps": 1e-5, "inits": "reserve", "out_bias": False,
    "remat": None,
}  # fmt: skip


def blocks(depth: int = 2, **fields: Any) -> Blocks:
    return Blocks(depth=depth, **{**SMALL, **fields})


def towers(**fields: Any) -> dict[str, Any]:
    scaled = {"scaled": fields.pop("scaled", False)}
    return {
        "video": ReserveVision(size=SIZE, patch=PATCH, blocks=blocks(**fields), **scaled),
        "audio": ReserveAudio(spectrogram=MELS, samples=SAMPLES, blocks=blocks(**fields), **scaled),
    }


def objective(**fields: Any) -> Reserve:
    fields = {"blocks": blocks(), "span_depth": 1, "vocab": VOCAB, "grid": (2, 3), "chosen": 8, **fields}
    return Reserve(**fields)


def streams(**fields: Any) -> ReserveStreams:
    sizes = {"segments": SEGMENTS, "each": EACH, "groups": GROUPS, "length": LENGTH, "matching_length": LENGTH + 2 * 6}
    return ReserveStreams(Numerals(), **{**sizes, "span_length": LONGEST, "audio_tokens": AUDIO_TOKENS, **fields})


def words_of(random: np.random.Generator, step: ReserveStreams) -> dict[str, Any]:
    """The arrays of a window of words of one to three pieces, none of which comes twice in it."""
    count = int(random.integers(14, 22))
    times = np.sort(random.uniform(0.2, 19.8, count))
    spoken = numbered(random.integers(1, 4, count).tolist(), times.tolist())
    first = int(random.integers(0, 400))
    said = [word._replace(text=".".join(str(int(x) + first) for x in word.text.split("."))) for word in spoken]
    source = (0,) * 3 + (int(random.integers(2)),)
    record = window(said, 20.0, video_src=list(source), title="500.501")
    return arrays(step(cut(record, random, segments=SEGMENTS, each=EACH, before="title"), random))


def arrays(made: Labelled) -> dict[str, Any]:
    assert isinstance(made.value, Masked)
    return {"": made.value.values, "mask": made.value.mask, **made.labels}


def web_text_of(random: np.random.Generator, spans: int = WEB_SPANS) -> dict[str, Any]:
    text = " ".join(map(str, random.integers(0, 550, 60)))
    step = MaskSpans(Numerals(), spans=spans, length=LENGTH + 2 * 6, histogram=(1.0, 1.0, 1.0))
    return arrays(step(text, random))


def stacked(made: dict[str, list[dict[str, Any]]]) -> dict[str, np.ndarray]:
    """The rows of each input as the batch's entries."""
    return {
        f"{name}_{key}" if key else name: np.stack([row[key] for row in rows])
        for name, rows in made.items()
        for key in rows[0]
    }


def tones(pitch: np.ndarray) -> np.ndarray:
    """A clip of each pitch, in Hz."""
    return 6_000 * np.sin(2 * np.pi * pitch[..., None] * np.arange(SAMPLES) / MELS.rate)


def batch(size: int, seed: int = 0, lacking: bool = True, **fields: Any) -> Any:
    """Examples of which with `lacking` row 1 has no frames, 2 no sound, 3 no words, 4 no web text, and some lack a
    frame or a clip. What an example lacks is zeros."""
    random = np.random.default_rng(seed)
    step = streams(**fields)
    found: dict[str, Any] = {"index": np.arange(size, dtype=np.uint32)}
    made: dict[str, list[dict[str, Any]]] = {"words": [], "web_text": []}
    for _ in range(size):
        made["words"].append(words_of(random, step))
        made["web_text"].append(web_text_of(random))
    found |= stacked(made)
    found["video"] = random.integers(0, 256, (size, SEGMENTS, *SIZE, 3), dtype=np.uint8)
    sound = tones(random.uniform(200, 3_000, (size, CLIPS))) + 500 * random.normal(size=(size, CLIPS, SAMPLES))
    found["audio"] = sound.astype(np.int16)
    found["video_mask"], found["audio_mask"] = np.ones((size, SEGMENTS), bool), np.ones((size, CLIPS), bool)
    if lacking:
        found["video_mask"][0, 3:] = False
        found["audio_mask"][0, 9:] = False
        found["audio_mask"][-1, [0, 4]] = False
    for row, name in enumerate(("video", "audio", "words", "web_text"), start=1):
        there = np.arange(size) != row if lacking else np.ones(size, bool)
        found[f"{name}_valid"] = there
        for key in [key for key in found if (key == name or key.startswith(f"{name}_")) and not key.endswith("_valid")]:
            found[key] = np.where(there.reshape(-1, *[1] * (found[key].ndim - 1)), found[key], 0).astype(
                found[key].dtype
            )
    return found


def told_batch(size: int, seed: int = 0) -> Any:
    """Examples whose every segment has a frame of one colour, a tone and a word that belong together, and that no other
    segment has; and a text of the web with one span."""
    random = np.random.default_rng(seed)
    step = streams(each=1)
    numbers = random.permutation(size * SEGMENTS).reshape(size, SEGMENTS)
    made: dict[str, list[dict[str, Any]]] = {"words": [], "web_text": []}
    for row in numbers:
        said = [Word(f"{2 * number}.{2 * number + 1}", 5 * i + 2.4, 5 * i + 2.6) for i, number in enumerate(row)]
        made["words"].append(arrays(step(cut(window(said, 20.0), random, segments=SEGMENTS, each=1), random)))
        made["web_text"].append(web_text_of(random, spans=1))
    colours = random.integers(0, 256, (size * SEGMENTS, 3))[numbers]
    share = numbers / numbers.size
    found: dict[str, Any] = {"index": np.arange(size, dtype=np.uint32), **stacked(made)}
    found["video"] = np.broadcast_to(colours[:, :, None, None], (size, SEGMENTS, *SIZE, 3)).astype(np.uint8)
    found["audio"] = tones(200 * 15**share).astype(np.int16)
    for name in ("video", "audio", "words", "web_text"):
        found[f"{name}_valid"] = np.ones(size, bool)
    for name in ("video", "audio"):
        found[f"{name}_mask"] = np.ones((size, SEGMENTS), bool)
    return found
