"""A folder of small videos: whole ones, and one for each way to be broken."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.data.video_files import video_file

RATE, SOUND_RATE = 5, 16_000  # of the videos
WHOLE = ("a.mp4", "b.webm", "c.mp4", "in/a.mp4", "short.mp4")


def frames(count: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Smooth pictures that get lighter, one unlike the other."""
    height, width = size
    level = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    steps = np.arange(count)[:, None, None, None] * 4 + seed * 7
    return (level[None] + steps + np.array([0, 20, 40])).clip(0, 255).astype(np.uint8)


def sound(count: int, seed: int = 0) -> np.ndarray:
    """A tone that rises, `count` frames long."""
    time = np.arange(count * SOUND_RATE // RATE) / SOUND_RATE
    return (8_000 * np.sin(2 * np.pi * (200 + 50 * seed + 30 * time) * time)).astype(np.int16)


def clip(count: int, seed: int = 0, container: str = "mp4", heard: bool = True) -> bytes:
    """A video of so many frames."""
    return video_file(frames(count, seed), RATE, sound(count, seed) if heard else None, SOUND_RATE, container)  # type: ignore[arg-type]


def make_folder(folder: Path) -> Path:
    """Videos of 6, 5, 4, 2 and 0.2 seconds, and six that can't be prepared, or not whole."""
    (folder / "in").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(clip(30))
    (folder / "a.vtt").write_text(
        "WEBVTT\n\n00:00:00.100 --> 00:00:00.900\nhello there\n\n00:00:01.900 --> 00:00:02.900\nacross\n\n"
        "00:00:01.950 --> 00:00:02.000\nbefore\n\n00:00:04.500 --> 00:00:05.000\nlast\n\n"
        "00:01:00.000 --> 00:01:01.000\noutside it\n"
    )
    (folder / "a.txt").write_text("a lecture")
    (folder / "b.webm").write_bytes(clip(25, 1, "webm"))
    (folder / "c.mp4").write_bytes(clip(20, 2, heard=False))
    (folder / "in/a.mp4").write_bytes(clip(10, 3))
    (folder / "in/a.json").write_text(json.dumps([{"word": "one", "start": 0.25, "end": 0.75}]))
    (folder / "short.mp4").write_bytes(clip(1, 4))
    (folder / "broken.mp4").write_bytes(clip(10)[:-900])  # without its index
    (folder / "cut.webm").write_bytes(clip(60, 5, "webm", heard=False)[:-700])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    picture = io.BytesIO()
    Image.fromarray(frames(1)[0]).save(picture, "JPEG")
    (folder / "still.mp4").write_bytes(picture.getvalue())
    (folder / "words.mp4").write_bytes(clip(10))
    (folder / "words.srt").write_text("these aren't subtitles")
    return folder
