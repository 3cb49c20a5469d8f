"""Chains of sounds over several clips, against each clip by itself with a copy of the generator."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains
from mmjax.data.transforms import audio
from mmjax.data.transforms.audio import AddNoise, CropOrPad, DecodeAudio, RandomGain
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import Spec, Transform
from mmjax.data.transforms.image import Decode
from mmjax.data.transforms.reserve.clips import EachClip
from mmjax.errors import UserError
from tests.data.conftest import kind_of, sound_bytes, tone
from tests.data.decoding.sounding import sounding

STEPS = (DecodeAudio(), RandomGain(), AddNoise(), CropOrPad(100))


@dataclass(frozen=True)
class Stuck(Transform):
    """Finds every sound bad."""

    def __call__(self, value, rng):
        raise BadExample("stuck", "undecodable")


def alone(clip: Any, rng) -> np.ndarray:
    for step in STEPS:
        clip = step(clip, rng)
    return clip.values


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox])
def test_each_clip_gets_the_same_draws(kind):
    clips = [tone(200 + 50 * i) for i in range(3)]
    rng = np.random.Generator(kind(5))
    rng.integers(3, dtype=np.int32)  # half of a number of 64 bits is left over
    wanted = [alone(clip, copy.deepcopy(rng)) for clip in clips]
    waves, mask = EachClip(STEPS, 3)(clips, rng)
    np.testing.assert_array_equal(waves, wanted)
    assert mask.tolist() == [True] * 3
    same, _ = EachClip(STEPS, 2)([clips[0], clips[0]], np.random.default_rng(1))
    np.testing.assert_array_equal(same[0], same[1])
    others, _ = EachClip(STEPS, 2)([clips[0], clips[0]], np.random.default_rng(2))
    assert not np.array_equal(same[0], others[0])


def test_clips_of_one_recording_are_decoded_once(monkeypatch):
    wave = np.random.default_rng(0).integers(-9_000, 9_000, 48_000 * 3) / 2**15
    content = sounding(wave, seconds=3, sounds=("flac",), container="matroska")
    clips = [Clip(content, start, start + 0.2) for start in (0.3, 0.9, 1.55, 2.5)]
    opened, decode = [], audio.sound_between
    monkeypatch.setattr(audio, "sound_between", lambda *given, **named: opened.append(given) or decode(*given, **named))
    step = EachClip((DecodeAudio(48_000), CropOrPad(9_600)), 4)
    waves, mask = step(clips, None)
    assert (len(opened), mask.all()) == (1, True)
    for clip, found in zip(clips, waves, strict=True):
        np.testing.assert_array_equal(found, DecodeAudio(48_000)(clip, None))
    others = [Clip(content, 0.3, 0.5), Clip(bytes(bytearray(content)), 0.9, 1.1)]
    opened.clear()
    np.testing.assert_array_equal(step(others, None).values[:2], waves[:2])
    assert len(opened) == 2


def test_what_is_missing_is_silence_that_the_mask_leaves_out():
    step = EachClip((DecodeAudio(), CropOrPad(100)), 4)
    empty = np.zeros(0, np.int16)
    waves, mask = step([tone(300), empty, tone(400)[:40]], None)
    assert mask.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(waves[0], tone(300)[:100])
    assert not waves[1].any()
    assert not waves[3].any()
    np.testing.assert_array_equal(waves[2], [*tone(400)[:40], *[0] * 60])


def test_lists_that_cannot_be_heard_are_bad():
    step = EachClip((DecodeAudio(), CropOrPad(100)), 2)
    empty = np.zeros(0, np.int16)
    assert kind_of(step, [empty, empty]) == "empty"
    assert kind_of(step, []) == "empty"
    assert kind_of(step, [tone(1)] * 3) == "unfit"
    assert kind_of(step, b"RIFF") == "unfit"
    assert kind_of(step, [tone(300), b"no sound"]) == "undecodable"
    assert kind_of(EachClip((Stuck(), *STEPS), 2), [tone(300)]) == "undecodable"


def test_a_chain_of_clips_fills_its_row():
    chains = Chains({"audio": (EachClip((DecodeAudio(8_000), CropOrPad(100)), 3),)})
    assert chains.specs["audio"] == Spec((3, 100), "int16", masked=True, rate=8_000)
    row = chains.row({"id": "a", "audio": [sound_bytes(tone(440))]}, lambda name: np.random.default_rng(0))
    assert row["audio"].shape == (3, 100)
    assert row["audio_mask"].tolist() == [True, False, False]


def test_steps_without_a_shape_are_told():
    for steps in ((DecodeAudio(),), (), (Decode(),)):
        with pytest.raises(UserError, match="CropOrPad"):
            EachClip(steps, 3).spec(None)
    with pytest.raises(UserError, match=r"EachClip\(count=0\)"):
        EachClip(STEPS, 0)
