"""The sound of `emoji_stories`: each event's sentence from the event's begin on, with the times of its words.

eSpeak NG tells the sample that each word begins at, and leaves a silence between words. So a word begins and ends, as
told here, with its first and last sample that is heard.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float, Int16

from mmjax.data.datasets.emoji_stories.grammar import hash_choice
from mmjax.data.datasets.spoken_emoji.catalogue import Utterance, hashed, utterances_of
from mmjax.data.datasets.spoken_emoji.espeak import MarkedSpeech, synthesizer
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.errors import UserError

SOUND_RATE = 24_000  # Hz: one that AAC and Opus both have
FRAME_RATE = 12
FRAME_SAMPLES = SOUND_RATE // FRAME_RATE
_GAP = 5  # between words: 40 to 55 ms
_REST = 0.1  # seconds of silence at the end of an event, at least
_HEARD = 0.03  # of the loudest sample of a sentence: in the gaps the variants that echo (f1 to f5) are mostly below it
_FASTER = (1.0, 1.1, 1.2, 1.35, 1.5)  # the rates that are tried, until a sentence fits its event
_SHIFTS = (3.0, 6.0)  # seconds


class Narration(NamedTuple):
    """The sound of a story at `SOUND_RATE`, the words of each sentence in the order in which they are heard, and the
    seconds by which it is later than the picture, in a circle (earlier: below 0).
    """

    sound: Int16[np.ndarray, " t"]
    sentences: tuple[tuple[TimedWord, ...], ...]
    shift: float = 0.0


def story_voice(story: str, split: str) -> Utterance:
    """The voice that tells a story, by its id: of the split's in `spoken_emoji`, at a rate that fits events."""
    voice = hash_choice(utterances_of(f"stories/{story}", split), f"{story}/voice")
    return replace(voice, rate=165 + hashed(f"stories/{story}/rate") % 26)


def narrated(sentences: Sequence[str], lengths: Sequence[int], voice: Utterance) -> Narration:
    """Speaks sentences, each from the begin of its event on. lengths: frames of each event.

    It depends on the arguments alone, not on earlier calls in this process. Raises UserError where a sentence doesn't
    fit, even spoken fast, or eSpeak NG doesn't tell where each word begins.
    """
    synthesizer().reset()
    sound = np.zeros(sum(lengths) * FRAME_SAMPLES)
    words, begin = [], 0
    for said, length in zip(sentences, lengths, strict=True):
        spoken, times = _fitted(said, length / FRAME_RATE - _REST, voice)
        sound[begin : begin + len(spoken)] = spoken
        words.append(tuple(TimedWord(w, _at(begin, start), _at(begin, end)) for w, start, end in times))
        begin += length * FRAME_SAMPLES
    return Narration(np.clip(np.round(sound), -(2**15), 2**15 - 1).astype(np.int16), tuple(words))


def shifted_narration(narration: Narration, key: str) -> Narration:
    """The same sound, turned in a circle by 3 to 6 seconds to either side, so that no sentence is cut.

    key: its hash draws by how much. Raises UserError where there is no such shift: a story of three events has one.
    """
    total = len(narration.sound) / SOUND_RATE
    # What is heard first afterwards began at `cut` before; it is in a silence.
    begins = [sentence[0].start for sentence in narration.sentences] + [total]
    ends = [0.0] + [sentence[-1].end for sentence in narration.sentences]
    cuts = [
        cut
        for cut in (frame / FRAME_RATE for frame in range(1, round(total * FRAME_RATE)))
        if any(end + _REST / 4 <= cut <= begin for end, begin in zip(ends, begins, strict=True))
    ]
    shifts = [s for cut in cuts for s in (-cut, total - cut) if _SHIFTS[0] <= abs(s) <= _SHIFTS[1]]
    if not shifts:
        raise UserError(f"emoji_stories: the sound of {key!r}, of {total:.1f} s, can't be shifted by 3 to 6 s")
    shift = hash_choice(shifts, f"{key}/shift")
    moved = []
    for sentence in narration.sentences:
        turns = (sentence[0].start + shift < 0) - (sentence[-1].end + shift > total)
        by = shift + total * turns
        moved.append(tuple(TimedWord(w.text, _rounded(w.start + by), _rounded(w.end + by)) for w in sentence))
    moved.sort(key=lambda sentence: sentence[0].start)
    return Narration(np.roll(narration.sound, round(shift * SOUND_RATE)), tuple(moved), shift)


def _fitted(said: str, room: float, voice: Utterance) -> tuple[Float[np.ndarray, " t"], list[tuple[str, float, float]]]:
    """A sentence at `SOUND_RATE` in units of int16, and its words with their times in seconds."""
    for faster in _FASTER:
        rate = round(voice.rate * faster)
        marked = synthesizer().speak_marked(
            said, voice.voice, rate=rate, pitch=voice.pitch, spread=voice.spread, gap=_GAP
        )
        times = _times(said, marked, synthesizer().sample_rate)
        if times[-1][2] <= room:
            sound = soxr.resample(marked.samples.astype(np.float64), synthesizer().sample_rate, SOUND_RATE)
            return sound[: round((room + _REST) * SOUND_RATE)], times
    raise UserError(
        f"emoji_stories: {said!r} takes {times[-1][2]:.2f} s in the voice {voice.voice!r}, and its event has "
        f"{room:.2f} s: the names of this version of `emoji` are longer than they were. Install the one that setup.py "
        "names"
    )


def _times(said: str, marked: MarkedSpeech, rate: int) -> list[tuple[str, float, float]]:
    words = said.split()
    begins = [begin for _, begin in sorted(marked.begins.items())]
    if len(begins) != len(words):
        raise UserError(f"emoji_stories: eSpeak NG marks {len(begins)} words in {said!r}, which has {len(words)}")
    loud = np.abs(marked.samples.astype(int))
    loud = loud > _HEARD * loud.max()
    times = []
    for word, begin, end in zip(words, begins, [*begins[1:], len(loud)], strict=True):
        (heard,) = np.nonzero(loud[begin:end])
        if not len(heard):
            raise UserError(f"emoji_stories: {word!r} of {said!r} came out silent")
        times.append((word, (begin + heard[0]) / rate, (begin + heard[-1] + 1) / rate))
    return times


def _at(begin: int, seconds: float) -> float:
    return _rounded(begin / SOUND_RATE + seconds)


def _rounded(seconds: float) -> float:
    """To milliseconds."""
    return round(float(seconds), 3)
