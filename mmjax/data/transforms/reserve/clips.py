"""A chain of sounds for several clips of one recording, which are heard alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.values import Masked
from mmjax.errors import UserError


@dataclass(frozen=True)
class EachClip(Transform):
    """Applies the steps of a chain of sounds, such as `(DecodeAudio(), RandomGain(), CropOrPad(25_600))`, to each clip
    of a list: int16 `[count, samples]`, and a mask `[count]` of the clips that there are.

    Every clip gets the same random numbers, so that one gain, or one place of a crop, holds for all of them. A list
    that is shorter than `count` is padded with silence, which the mask leaves out, and so is a clip that is empty: the
    sound may end before the picture does. Samples that the steps pad within a clip are silence without a mask.

    Raises `BadExample` for a list that is longer, or without a clip that can be heard, and where a step does for any
    other reason than an empty sound; UserError where the steps don't end in arrays of one shape.
    """

    random = True

    steps: tuple[Transform, ...]
    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"EachClip(count={self.count!r}): the number of clips is a whole number from 1 on")

    def __call__(self, value: Any, rng: Rng) -> Masked:
        if not isinstance(value, Sequence) or isinstance(value, bytes | str):
            raise BadExample(f"there is no list of clips but {value!r:.40}", "unfit")
        if len(value) > self.count:
            raise BadExample(f"there are {len(value)} clips, and EachClip(count={self.count}) takes no more", "unfit")
        value = self._decoded(value)
        spec = self.spec(None)
        waves, mask = np.zeros(spec.shape, spec.dtype), np.zeros(self.count, bool)
        begin = None if rng is None else rng.bit_generator.state
        for place, clip in enumerate(value):
            if rng is not None and begin is not None:
                rng.bit_generator.state = begin  # a copy of the generator for each costs more than some of the steps
            try:
                waves[place], mask[place] = self._heard(clip, rng), True
            except BadExample as reason:
                if reason.kind != "empty":
                    raise
        if not mask.any():
            raise BadExample(f"none of the {len(value)} clips has a sound", "empty")
        return Masked(waves, mask)

    def _decoded(self, clips: Sequence[Any]) -> Sequence[Any]:
        """The waveform of each clip, where all are of one recording: it is opened, sought in and decoded once."""
        first = clips[0] if clips else None
        decode = self.steps[0] if self.steps else None
        if not (isinstance(first, Clip) and isinstance(decode, DecodeAudio)):
            return clips
        alike = [c for c in clips if isinstance(c, Clip) and c.content is first.content and c.sound == first.sound]
        spans = [(clip.start, clip.end) for clip in alike if clip.end is not None]
        if len(spans) < len(clips):
            return clips
        begin = min(start for start, _ in spans)
        whole = decode(replace(first, start=begin, end=max(end for _, end in spans)), None)
        places = [[round((time - begin) * decode.rate) for time in span] for span in spans]
        return [whole[start:end] for start, end in places]

    def _heard(self, clip: Any, rng: Rng) -> np.ndarray:
        for step in self.steps:
            clip = step(clip, rng)
        return clip.values if isinstance(clip, Masked) else clip

    def spec(self, before: Spec | None) -> Spec:
        for step in self.steps:
            before = step.spec(before)
        if before is None or VARIES in before.shape:
            raise UserError(f"EachClip(steps={self.steps!r:.80}): the steps end in one, such as CropOrPad(samples)")
        return Spec((self.count, *before.shape), before.dtype, masked=True, rate=before.rate)
