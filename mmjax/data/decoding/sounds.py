"""Reads a file of sound to its end, within bounds, as one waveform of int16."""

import io
import os
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.containers import contained_files
from mmjax.data.decoding.loudness import Waveform, in_scale, to_int16
from mmjax.data.decoding.signatures import undecodable

# libsndfile gives these as int16 unchanged; other subtypes (floats, Vorbis, 24 bit) are read as float32 in
# [-1, 1] and scaled here, since libsndfile doesn't scale floats to integers by itself.
_INT16_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8")
_UNKNOWN = 2**63 - 1  # libsndfile's count for a FLAC stream whose writer couldn't note its length
_BLOCK = 2**18  # frames that are read at a time where the length isn't known
_MP3_SLACK = 2_304  # samples by which decoders differ at the ends of an MP3: two frames


class Sound(NamedTuple):
    """Samples and their rate, in Hz."""

    samples: np.ndarray  # [T] or [T, channels]
    rate: int


def waveform(content: bytes, rate: int, most_samples: int) -> Waveform:
    """A file's sound at `rate`, the mean of its channels. Raises as `read_sound` does."""
    samples, own = read_sound(content, most_samples, rate)
    if samples.ndim == 2:
        samples = samples.mean(axis=1, dtype=np.float32).astype(samples.dtype)
    if own != rate:
        try:
            samples = soxr.resample(samples, own, rate)
        except Exception as error:  # at a broken header's rate
            raise BadExample(f"the sound's rate is {own:,} Hz: {error}", "undecodable") from error
    return to_int16(samples)


def read_sound(content: bytes, most_samples: int, rate: int | None = None) -> Sound:
    """Reads all of a file's sound, as int16 or as floats with full scale 1.0 (`loudness.in_scale`).

    Raises:
        BadExample: it can't be decoded to its end, is on another scale, or has more than `most_samples` (all channels
            together) unpacked, or resampled to `rate`.
    """
    try:
        found: list[Sound] = []
        for part in contained_files(content):
            found.append(_read(part, rate, most_samples, sum(sound.samples.size for sound in found)))
        joined = _joined(found)
        return Sound(in_scale(joined.samples), joined.rate)
    except BadExample:
        raise
    except Exception as error:  # libsndfile's and soundfile's, and what broken headers do to numpy
        raise BadExample(undecodable("sound", content, error), "undecodable") from error


def lasting(file: bytes | str | os.PathLike[str]) -> float | None:
    """The duration of a sound in seconds, by its header and without decoding; None where the header doesn't tell."""
    try:
        told = soundfile.info(_Stream(file) if isinstance(file, bytes) else os.fspath(file))
    except Exception:  # as `read`: broken headers make soundfile raise nearly anything
        return None
    return None if told.frames == _UNKNOWN or not told.samplerate else told.frames / told.samplerate


def _joined(found: list[Sound]) -> Sound:
    if len(found) == 1:
        return found[0]
    kinds = {(sound.rate, sound.samples.shape[1:], sound.samples.dtype) for sound in found}
    if len(kinds) > 1:
        raise BadExample("the file is joined of sounds that differ in rate, channels or coding", "undecodable")
    return Sound(np.concatenate([sound.samples for sound in found]), found[0].rate)


def _read(content: bytes, rate: int | None, most_samples: int, used: int) -> Sound:
    """The samples of one part; `used`: the number of samples of the parts before."""
    with soundfile.SoundFile(_Stream(content)) as sound:
        own, channels, frames = sound.samplerate, sound.channels, sound.frames
        wanted = rate or own
        most = (most_samples - used) // max(channels, -(-wanted // own))  # frames
        # soxr adds noise, different at each call, to int16 that it resamples: the same file would differ each time.
        dtype = "int16" if own == wanted and sound.subtype in _INT16_SUBTYPES else "float32"
        slack = _MP3_SLACK if sound.format == "MP3" else 0
        # A file without seeking (GSM 6.10) must be read with a given count.
        samples = sound.read(-1 if sound.seekable() else frames, dtype=dtype) if frames <= most else None
    if frames == _UNKNOWN:
        samples = _to_the_end(content, dtype, most)
        slack = _UNKNOWN
    if samples is None:
        count = f"{frames:,}" if frames != _UNKNOWN else f"over {most:,}"
        raise BadExample(
            f"the sound has {count} frames of {channels} channels at {own} Hz, more than "
            f"most_samples={most_samples:,} unpacked and at {wanted} Hz",
            "too_large",
        )
    if len(samples) < frames - slack:
        raise BadExample(
            f"the sound is cut off or broken: {len(samples):,} of its {frames:,} samples can be decoded", "undecodable"
        )
    return Sound(samples, own)


def _to_the_end(content: bytes, dtype: Literal["int16", "float32"], most: int) -> np.ndarray | None:
    """The samples of a file that doesn't say how many it has; None where they are more than `most`."""
    blocks, count = [], 0
    with _Unending(_Stream(content)) as sound:
        while len(block := sound.read(_BLOCK, dtype=dtype)):
            blocks.append(block)
            count += len(block)
            if count > most:
                return None
            if len(block) < _BLOCK:
                break
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype)


class _Unending(soundfile.SoundFile):
    """Reads from front to back only: soundfile would seek to the end of a block, which may not exist."""

    def seekable(self) -> bool:
        """Always False."""
        return False


class _Stream(io.BytesIO):
    """Tolerates a seek before the start, which libsndfile does in a broken file; an exception in its callback would
    only be printed.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()
