"""Videos with sound, made in the tests: a click, or any samples, at known times."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.data.decoding.clips import Clip, numbered, quiet

FORMATS = {"aac": "fltp", "libmp3lame": "fltp", "ac3": "fltp", "libopus": "flt"}


def clicks(times: Sequence[float], seconds: float, rate: int) -> np.ndarray:
    """Silence [T] with one sample of 0.9 at each time."""
    samples = np.zeros(round(seconds * rate))
    samples[[round(time * rate) for time in times]] = 0.9
    return samples


def sounding(
    samples: np.ndarray | None = None,
    *,
    seconds: float = 3,
    rate: int = 48_000,
    container: str = "mp4",
    sounds: Sequence[str] = ("aac",),
    pictures: str | None = "libx264",
    delay: float = 0.0,
    gap: tuple[float, float] | None = None,
    pictures_from: float = 0.0,
    path: Path | None = None,
) -> bytes:
    """A file with pictures of 25 a second, and tracks of sound: `samples` [T] or [T, channels] in [-1, 1].

    delay: when the sound begins; gap: a stretch of it that is left out; pictures_from: when the pictures begin; path:
    a file to write to, where its index is moved to the front. Each track of sound is half as loud as the one before it.
    """
    if samples is None:
        samples = 0.5 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)
    samples = samples[:, None] if samples.ndim == 1 else samples
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
    stream, clip = io.BytesIO(), Clip(codec=pictures or "")
    options = {"movflags": "faststart"} if path is not None else {}
    if container == "mp4":
        options["movie_timescale"] = str(rate)  # else a track's beginning is rounded to a millisecond
    with av.open(stream if path is None else str(path), "w", format=container, options=options) as out:
        video: Any = out.add_stream(clip.codec, rate=25, options={"g": "100", **quiet(clip)}) if pictures else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 100, 60, "yuv420p"
        tracks: list[Any] = [out.add_stream(codec, rate=rate, layout=layout) for codec in sounds]
        for i in range(round(seconds * 25)):
            if video is not None and i >= pictures_from * 25:
                frame = av.VideoFrame.from_ndarray(numbered(i, 100, 60), "rgb24")
                frame.pts = i
                out.mux(video.encode(frame))
            first, last = i * rate // 25, (i + 1) * rate // 25
            if gap is not None and gap[0] <= i / 25 < gap[1]:
                continue
            for loud, codec, track in zip((1, 0.5, 0.25), sounds, tracks, strict=False):
                part: Any = samples[first:last] * loud
                form = FORMATS.get(codec, "s16")
                part = np.rint(part * 32_767).astype(np.int16) if form == "s16" else part.astype(np.float32)
                part = part.T if form.endswith("p") else part.reshape(1, -1)
                sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), form, layout)
                sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = first + round(delay * rate)
                out.mux(track.encode(sound))
        for track in [video, *tracks] if video is not None else tracks:
            out.mux(track.encode())
    return stream.getvalue() if path is None else path.read_bytes()
