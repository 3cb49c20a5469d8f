"""Encodes the stories of `emoji_stories` as files of video with sound, by PyAV.

Encoders run in one thread with fixed settings, and containers have neither a date nor random numbers: the same story
gives the same bytes on one machine.
"""

import io
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int16, UInt8

from mmjax.data.datasets.emoji_stories.narration import FRAME_RATE, FRAME_SAMPLES, SOUND_RATE
from mmjax.errors import UserError

Container = Literal["mp4", "webm"]
_KEY_FRAMES = 36  # frames from one to the next: three seconds
_SOUND_BITS = 32_000  # a second
_ALWAYS = {"threads": "1", "flags": "+bitexact"}


class _Codecs(NamedTuple):
    video: str
    settings: dict[str, str]
    audio: str


# x264's macroblock tree reads memory that it never wrote, where pictures are so small: its files differ by chance.
_CODECS: dict[Container, _Codecs] = {
    "mp4": _Codecs("libx264", {"preset": "medium", "crf": "22", "x264-params": "mbtree=0"}, "aac"),
    "webm": _Codecs("libvpx-vp9", {"deadline": "good", "cpu-used": "5", "crf": "24", "b": "0"}, "libopus"),
}


def video_file(frames: UInt8[np.ndarray, "f h w 3"], sound: Int16[np.ndarray, " t"], container: Container) -> bytes:
    """A file of H.264 and AAC ("mp4") or of VP9 and Opus ("webm"): frames at `FRAME_RATE`, sound at `SOUND_RATE`.

    Raises:
        UserError: PyAV isn't installed, lacks an encoder, or the sound isn't as long as the frames.
    """
    try:
        import av
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        raise UserError("writing a video needs PyAV, which isn't installed: pip install 'mmjax[demo]'") from error
    if len(sound) != len(frames) * FRAME_SAMPLES:
        raise UserError(
            f"a video of {len(frames)} frames takes {len(frames) * FRAME_SAMPLES} samples of sound, not {len(sound)}"
        )
    stream = io.BytesIO()
    codecs = _CODECS[container]
    try:
        with av.open(stream, "w", format=container, options={"fflags": "+bitexact"}) as out:
            settings = {**codecs.settings, **_ALWAYS, "g": str(_KEY_FRAMES)}
            video: Any = out.add_stream(codecs.video, FRAME_RATE, options=settings)
            audio: Any = out.add_stream(codecs.audio, SOUND_RATE, options=_ALWAYS, layout="mono")
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            audio.bit_rate = _SOUND_BITS
            for number, frame in enumerate(frames):
                samples = sound[number * FRAME_SAMPLES : (number + 1) * FRAME_SAMPLES]
                out.mux(video.encode(_picture(av, frame, number)))
                out.mux(audio.encode(_samples(av, samples, number * FRAME_SAMPLES)))
            out.mux(video.encode(None))
            out.mux(audio.encode(None))
    except UnknownCodecError as error:
        raise UserError(
            f"this build of PyAV lacks the encoder {error}: pip install 'av>=14', whose wheels have it"
        ) from error
    return stream.getvalue()


def _picture(av: Any, frame: UInt8[np.ndarray, "h w 3"], number: int) -> Any:
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.pts, picture.time_base = number, Fraction(1, FRAME_RATE)
    return picture


def _samples(av: Any, samples: Int16[np.ndarray, " t"], begin: int) -> Any:
    part = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    part.sample_rate, part.pts, part.time_base = SOUND_RATE, begin, Fraction(1, SOUND_RATE)
    return part
