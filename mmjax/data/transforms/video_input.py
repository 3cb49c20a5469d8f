"""Reads a user's videos: files, and arrays of frames."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.stored_frames import stored_frames
from mmjax.data.decoding.video_frames import frames_at
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.decoding.videos import video_facts
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.input import Input, Read, file_content, is_path, local_file, value_kind
from mmjax.data.video_files import video_file
from mmjax.errors import UserError

_SHOWN = (0.125, 0.375, 0.625, 0.875)  # parts of a video: the frames that a picture of it is made of
_SIDE = 160  # pixels of the shorter side of each of them
_STORED = (np.ndarray, list, tuple)  # a video that is stored as its frames
_STORED_RATE = 8  # frames a second that they are played at, as nothing says when they were filmed
_SLACK = 0.5  # seconds by which a video may be longer without a word of it
_RATE, _SOUND_RATE = 12, 24_000  # frames and samples a second of a clip to be watched


class VideoInput(Input):
    """Reads videos: files, or frames as pixels. A picture of one shows four of its frames, row by row. Warns once about
    files that are longer than the model watches.
    """

    one, several, unit, draws, moves, amount = "video", "videos", "frames", True, True, "std"
    # What FFmpeg may lack a decoder for is listed too, so that it is named rather than missed in silence.
    endings = (
        *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm"),
        ".wmv",
    )

    def __init__(self, modality: str, chain: Sequence[Any], spec: Any, upright: bool = True):
        super().__init__(modality, chain, spec, upright)
        self._warned = False

    @classmethod
    def drawn(cls, value: Any) -> np.ndarray:
        if isinstance(value, _STORED):
            frames = stored_frames(value, [int(part * len(value)) for part in _SHOWN])
        else:
            clip = Clip.of(value)
            end = clip.end if clip.end is not None else video_facts(clip.content).seconds
            times = [clip.start + part * ((end or 0.0) - clip.start) for part in _SHOWN]
            frames, _ = frames_at(clip.content, times, short_side=_SIDE)
        return np.concatenate([np.concatenate(list(frames[:2]), axis=1), np.concatenate(list(frames[2:]), axis=1)])

    @classmethod
    def filmed(cls, value: Any, seconds: float, side: int) -> bytes:
        if isinstance(value, _STORED):
            places = range(min(len(value), int(seconds * _STORED_RATE)))
            return video_file(_scaled(stored_frames(value, places), side), _STORED_RATE, None, _SOUND_RATE, "webm")
        clip = Clip.of(value)
        facts = video_facts(clip.content)
        end = clip.end if clip.end is not None else facts.seconds if facts.seconds is not None else clip.start + seconds
        times = np.arange(clip.start, min(end, clip.start + seconds), 1 / _RATE)
        frames, _ = frames_at(clip.content, times, short_side=min(side, facts.height, facts.width))
        sound = None
        if facts.sounds:
            sound = sound_between(clip.content, clip.start, clip.start + len(frames) / _RATE, _SOUND_RATE)
        return video_file(frames, _RATE, sound, _SOUND_RATE, "webm")

    @classmethod
    def disturbed(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None,
        amount: float,
        random: np.random.Generator,
        chain: Sequence[Any],
    ) -> np.ndarray:
        """Frames with Gaussian noise, each pixel with its own, as pictures have it (`PictureInput.disturbed`)."""
        return PictureInput.disturbed(values, mask, amount, random, chain)

    @property
    def takes(self) -> str:
        return "it takes a file name, bytes of a file, or frames, a uint8 array [F, H, W, 3]"

    @property
    def alone(self) -> tuple[int, ...]:
        return (4,)

    def read(self, value: Any, where: str) -> Read:
        if is_path(value):
            name = os.fspath(value)
            value = file_content(name, where) if "://" in name else local_file(name, where)
            return self._watched(value, where)
        if isinstance(value, np.ndarray):
            if value.ndim != 4 or value.shape[-1] != 3 or value.dtype != np.uint8:
                raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
            return self.run(value)
        if not isinstance(value, bytes):
            raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
        if not value:
            raise BadExample("the video is empty (0 bytes)", "empty")
        return self._watched(value, where)

    def _watched(self, content: bytes | str, where: str) -> Read:
        found = self.run(Clip(content))
        most = next((most for step in self.chain if (most := getattr(step, "seconds", None))), None)
        if most is not None and not self._warned:
            whole = video_facts(content).seconds
            if whole is not None and whole > most + _SLACK:
                self._warned = True
                warnings.warn(
                    f"{where}: the first {most:.3g} of its {whole:.3g} seconds are watched; further videos that are "
                    "longer aren't named",
                    stacklevel=2,
                )
        return found


def _scaled(frames: UInt8[np.ndarray, "f h w 3"], side: int) -> UInt8[np.ndarray, "f g v 3"]:
    """The frames, the shorter side of `side` pixels at most; no side below the two that encoders need."""
    height, width = frames.shape[1:3]
    part = min(1.0, side / min(height, width))
    size = (max(2, round(width * part)), max(2, round(height * part)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])
