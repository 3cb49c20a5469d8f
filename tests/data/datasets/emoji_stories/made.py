"""Stories and files of the tests' own."""

import io
from typing import NamedTuple

import av
import numpy as np

from mmjax.data.datasets.emoji_stories.grammar import Plot, StoryEvent, drawn_plot

GOAT, ROCKET, PEAR = "1F410", "1F680", "1F350"  # whose drawings nearly fill a square
KINDS = ("appear", "move", "meet", "grow", "shrink", "turn", "leave")
NAMES = ["goat", "rocket", "pear"]
MET = Plot(  # one of each kind, and each way to go
    (
        StoryEvent("appear", 0, cell=(0, 0)),
        StoryEvent("appear", 1, cell=(1, 2)),
        StoryEvent("move", 0, way="down", cell=(1, 0)),
        StoryEvent("meet", 0, 1, cell=(1, 1)),
        StoryEvent("move", 0, way="left", cell=(1, 0)),
        StoryEvent("grow", 1, cell=(1, 2)),
        StoryEvent("shrink", 0, cell=(1, 0)),
        StoryEvent("turn", 0, cell=(1, 0)),
        StoryEvent("move", 1, way="up", cell=(0, 2)),
        StoryEvent("move", 0, way="right", cell=(1, 1)),
        StoryEvent("leave", 1, way="left", cell=(0, 2)),
        StoryEvent("leave", 0, way="right", cell=(1, 1)),
    ),
    (22, 24),
)


def plots(count: int = 200) -> list[Plot]:
    """Drawn ones of all sizes."""
    sizes = [(roles, events) for events in range(3, 8) for roles in range(2, min(5, max(2, events - 2)) + 1)]
    drawn = [drawn_plot(f"test/{n}", *sizes[n % len(sizes)]) for n in range(count)]
    found = [plot for plot in drawn if plot is not None]
    assert len(found) > 0.8 * count
    return found


class Read(NamedTuple):
    """A file as PyAV reads it: frames and their times, the sound from -1 to 1 with its rate and its begin."""

    frames: np.ndarray
    times: list[float | None]
    sound: np.ndarray
    rate: int
    begin: float
    codecs: tuple[str, ...]


def read(file: bytes) -> Read:
    with av.open(io.BytesIO(file), "r") as container:
        codecs = tuple(stream[0].codec_context.name for stream in (container.streams.video, container.streams.audio))
        shown = list(container.decode(video=0))
    with av.open(io.BytesIO(file), "r") as container:
        heard = list(container.decode(audio=0))
    sound = np.concatenate([part.to_ndarray().reshape(-1) for part in heard])
    frames = np.stack([frame.to_ndarray(format="rgb24") for frame in shown])
    return Read(frames, [f.time for f in shown], sound, heard[0].sample_rate, heard[0].time or 0.0, codecs)
