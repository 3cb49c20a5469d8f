"""Transforms of videos: from a file to frames uint8 `[F, H, W, 3]` with a mask of the real ones.

    (DecodeVideo(8, short_side=256), EachFrame((RandomResizedCrop(224), RandomFlip())))

Frames travel as bytes, and are normalised on the device.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.pictures import MOST_PIXELS
from mmjax.data.decoding.stored_frames import stored_frames
from mmjax.data.decoding.video_frames import frames_at
from mmjax.data.decoding.videos import video_facts
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.values import Masked, prefix_mask
from mmjax.data.transforms.video_input import VideoInput
from mmjax.errors import UserError

_CHANNELS = 3


@dataclass(frozen=True)
class DecodeVideo(Transform):
    """Decodes `frames` frames of a video, as they are shown at their times.

    Without a `rate` each is of another of `frames` equal parts of the video: at a random time of it in training, at its
    middle in evaluation (Wang et al. 2016, arXiv:1608.00859). With a rate they are the first of every 1 / rate seconds,
    and what a shorter video hasn't is padding. Of frames that are given as such, arrays or pictures, the times are
    equal parts too, and a shorter video is padded.

    Attributes:
        frames: number of frames.
        rate: frames a second.
        short_side: pixels of a frame's shorter side, to which it is scaled as it is decoded: of a large video one frame
            at a time is ever in memory. None: as it is.
        most_pixels: of a frame, above which a video isn't decoded.
        jitter: whether the times are drawn in training; else they are the middles there too (MERLOT Reserve).

    Raises UserError for numbers that aren't above 0.
    """

    in_parts = True

    frames: int
    rate: float | None = None
    short_side: int | None = None
    most_pixels: int = MOST_PIXELS
    jitter: bool = True

    def __post_init__(self) -> None:
        for name in ("frames", "rate", "short_side", "most_pixels"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"DecodeVideo({name}={value!r}) must be above 0")

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True where times are drawn: what isn't can be kept in memory (`Mixture.cache`)."""
        return self.jitter and self.rate is None

    @property
    def seconds(self) -> float | None:
        """The seconds of a longer video that are watched; None: all of it is."""
        return None if self.rate is None else self.frames / self.rate

    def __call__(self, value: Any, rng: Rng) -> Masked:
        shown = self._given(value, rng) if isinstance(value, np.ndarray | list | tuple) else self._read(value, rng)
        frames = np.zeros((self.frames, *shown.shape[1:]), np.uint8)
        frames[: len(shown)] = shown
        return Masked(frames, prefix_mask(self.frames, len(shown)))

    def _read(self, value: Any, rng: Rng) -> np.ndarray:
        clip = Clip.of(value)
        end = clip.end
        if end is None:
            end = video_facts(clip.content).seconds
            if end is None:
                raise BadExample("the video doesn't say how long it is: CutWindow(seconds=...) cuts one", "unfit")
        times = clip.start + self._times(end - clip.start, rng)
        shown, _ = frames_at(clip.content, times, most_pixels=self.most_pixels, short_side=self.short_side)
        return shown

    def _times(self, whole: float, rng: Rng) -> np.ndarray:
        """Seconds from the clip's begin."""
        if self.rate is None:
            within = np.full(self.frames, 0.5) if rng is None or not self.jitter else rng.random(self.frames)
            return (np.arange(self.frames) + within) * whole / self.frames
        times = np.arange(self.frames) / self.rate
        return times[: max(1, int(np.sum(times < whole)))]

    def _given(self, value: Sequence[Any] | np.ndarray, rng: Rng) -> np.ndarray:
        places = np.arange(len(value))
        if len(value) > self.frames:
            times = self._times(len(value), rng) if self.rate is None else np.arange(self.frames)
            places = np.minimum(times.astype(int), len(value) - 1)
        return stored_frames(value, places.tolist(), self.most_pixels)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.frames, VARIES, VARIES, _CHANNELS), "uint8", masked=True, kind=VideoInput)


@dataclass(frozen=True)
class EachFrame(Transform):
    """Applies transforms of pictures to each frame of a video, with the same random numbers: all are cropped alike."""

    steps: tuple[Transform, ...]

    @property
    def random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True where one of its steps draws."""
        return any(step.random for step in self.steps)

    def __call__(self, value: Masked, rng: Rng) -> Masked:
        made = []
        for frame in value.values[value.mask]:
            same = copy.deepcopy(rng)
            for step in self.steps:
                frame = step(frame, same)
            made.append(np.asarray(frame))
        frames = np.zeros((len(value.mask), *made[0].shape), made[0].dtype)
        frames[: len(made)] = made
        return Masked(frames, value.mask)

    def spec(self, before: Spec | None) -> Spec | None:
        if before is None or len(before.shape) != 4:
            raise UserError("EachFrame(...) follows frames: DecodeVideo(frames) comes before it")
        frame: Spec | None = None
        for step in self.steps:
            frame = step.spec(frame)
        height, width = (VARIES, VARIES) if frame is None else frame.shape[:2]
        return before._replace(shape=(before.shape[0], height, width, _CHANNELS))

    def by_hand(self, upright: bool) -> "EachFrame":
        steps = [made for step in self.steps if (made := step.by_hand(upright)) is not None]
        return EachFrame(tuple(steps))
