"""Writes files of video with sound, by PyAV (the extra `video`): the demo data's, and clips to be watched on a page.

Encoders run in one thread with fixed settings, and containers have neither a date nor random numbers: the same frames
and sound give the same bytes on one machine.
"""

import io
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int16, UInt8

from mmjax.errors import UserError

Container = Literal["mp4", "webm"]
_KEY_SECONDS = 3  # from one key frame to the next
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


def video_file(
    frames: UInt8[np.ndarray, "f h w 3"],
    rate: int,
    sound: Int16[np.ndarray, " t"] | None,
    sound_rate: int,
    container: Container,
) -> bytes:
    """A file of H.264 and AAC ("mp4"), or of VP9 and Opus ("webm"). A last odd row or column of pixels is left out.

    rate: frames a second.  sound: mono, as long as the frames; None: the file has none.  sound_rate: in Hz, a multiple
    of `rate` that the codec takes (Opus: 8,000, 12,000, 16,000, 24,000 or 48,000).

    Raises:
        UserError: PyAV isn't installed or lacks an encoder, or the sound isn't as long as the frames.
    """
    try:
        import av
        from av.codec.codec import UnknownCodecError
    except ImportError as error:
        raise UserError("writing a video needs PyAV, which isn't installed: pip install 'mmjax[video]'") from error
    each, wanted = sound_rate // rate, len(frames) * sound_rate // rate
    if sound is not None and len(sound) != wanted:
        raise UserError(f"a video of {len(frames)} frames takes {wanted} samples of sound, not {len(sound)}")
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    stream, codecs = io.BytesIO(), _CODECS[container]
    try:
        with av.open(stream, "w", format=container, options={"fflags": "+bitexact"}) as out:
            settings = {**codecs.settings, **_ALWAYS, "g": str(_KEY_SECONDS * rate)}
            video: Any = out.add_stream(codecs.video, rate, options=settings)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            audio: Any = None
            if sound is not None:
                audio = out.add_stream(codecs.audio, sound_rate, options=_ALWAYS, layout="mono")
                audio.bit_rate = _SOUND_BITS
            for number, frame in enumerate(np.ascontiguousarray(frames)):
                out.mux(video.encode(_picture(av, frame, number, rate)))
                if sound is not None:
                    begin = number * each
                    out.mux(audio.encode(_samples(av, sound[begin : begin + each], begin, sound_rate)))
            out.mux(video.encode(None))
            if sound is not None:
                out.mux(audio.encode(None))
    except UnknownCodecError as error:
        raise UserError(
            f"this build of PyAV lacks the encoder {error}: pip install 'av>=18', whose wheels have it"
        ) from error
    return stream.getvalue()


def _picture(av: Any, frame: UInt8[np.ndarray, "h w 3"], number: int, rate: int) -> Any:
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture.pts, picture.time_base = number, Fraction(1, rate)
    return picture


def _samples(av: Any, samples: Int16[np.ndarray, " t"], begin: int, rate: int) -> Any:
    part = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    part.sample_rate, part.pts, part.time_base = rate, begin, Fraction(1, rate)
    return part
