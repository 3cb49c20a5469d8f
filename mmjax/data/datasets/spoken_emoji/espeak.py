"""Speech from text by the eSpeak NG library, through its C API.

The library keeps its voice and the state of its noise and flutter generators in globals, so a process has one
`synthesizer()`, and the same words sound a little different each time. `reset` unloads and reloads the library: the
next utterances are a pure function of the calls since (but for variants of its Klatt synthesizer: adam, caleb, ...).
"""

import _ctypes
import ctypes
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

from mmjax.errors import UserError

# Values of speak_lib.h (eSpeak NG 1.52).
_SYNCHRONOUS = 2  # the retrieval mode of the documentation polls in a thread: 20 ms an utterance instead of 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH, _RANGE, _GAP = 1, 3, 4, 7
_SEED = 1
_NO_MORE, _WORD = 0, 1  # types of events

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("position", ctypes.c_int),  # in the text, in characters from 1 on
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class MarkedSpeech(NamedTuple):
    """A waveform, and the sample that each word begins at, by the word's place in the text (in characters from 0 on).

    Between the beginning and the first sound a word may be silent, as before a plosive.
    """

    samples: Int16[np.ndarray, " t"]
    begins: dict[int, int]


class Synthesizer:
    """eSpeak NG; its samples are mono int16 at `sample_rate` Hz. Get it by `synthesizer()`: a second instance would
    keep the library in memory, and so keep `reset` from clearing its state.

    Raises ImportError where `espeakng-loader` isn't installed, OSError where the library can't be loaded and UserError
    where it doesn't start.
    """

    sample_rate: int

    def __init__(self) -> None:
        import espeakng_loader

        self._library_path = espeakng_loader.get_library_path()
        self._folder = tempfile.TemporaryDirectory(prefix="mmjax-espeak-")
        self._data_path = Path(self._folder.name)
        _link(Path(espeakng_loader.get_data_path()), self._data_path)
        self._chunks: list[bytes] = []
        self._begins: dict[int, int] = {}
        self._on_samples: Callable[..., int] = _Callback(self._collect)
        self._load()

    def _load(self) -> None:
        self._library: Any = ctypes.CDLL(self._library_path)
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data_path).encode(), _DONT_EXIT)
        if self.sample_rate <= 0:
            raise UserError(f"eSpeak NG cannot start with the data in {self._data_path}: reinstall `espeakng-loader`")
        self._library.espeak_SetSynthCallback(self._on_samples)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))

    def reset(self) -> None:
        """Clears all state, so that the next utterances don't depend on earlier ones (about 8 ms)."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        self._load()

    def _collect(self, samples: int | None, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        found = ctypes.cast(events, ctypes.POINTER(_Event)) if events else ()
        for event in found:
            if event.type == _NO_MORE:
                break
            if event.type == _WORD:
                self._begins[event.position - 1] = event.sample
        return 0

    def speak(
        self, text: str, voice: str, *, rate: int = 175, pitch: int = 50, spread: int = 50
    ) -> Int16[np.ndarray, " t"]:
        """The words of `text` as a waveform.

        Args:
            voice: language and variant, such as "en-us+f3"; variants are files of the library's data, in `voices/!v`.
            rate: words a minute, 80 to 450.
            pitch: 0 to 100, the base pitch.
            spread: 0 to 100, how far the intonation moves.

        Raises:
            UserError: the library has no such voice (it would take an unknown variant for none, silently), or can't
                speak the text.
        """
        return self.speak_marked(text, voice, rate=rate, pitch=pitch, spread=spread).samples

    def speak_marked(
        self, text: str, voice: str, *, rate: int = 175, pitch: int = 50, spread: int = 50, gap: int = 0
    ) -> MarkedSpeech:
        """Speaks as `speak` does, and tells where each word begins.

        Args:
            gap: silence between words, in some 10 ms (at a rate of 175; less at a higher one).

        Raises UserError as `speak` does.
        """
        language, _, variant = voice.partition("+")
        unknown_variant = variant and not (self._data_path / "voices" / "!v" / variant).is_file()
        if unknown_variant or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice {voice!r}: a language ({language!r}) and a variant of voices/!v")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, spread), (_GAP, gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks.clear()
        self._begins = {}
        encoded = text.encode()
        if self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None) != 0:
            raise UserError(f"eSpeak NG could not speak {text!r} in the voice {voice!r}")
        self._library.espeak_Synchronize()
        return MarkedSpeech(np.frombuffer(b"".join(self._chunks), np.int16), self._begins)


def _link(data: Path, folder: Path) -> None:
    """Makes `folder` the library's data, by links, with each language as a file of its own name: `lang/en-us` beside
    `lang/gmw/en-US`. The library looks there first, and else reads all its languages and variants, 280 files, for the
    first voice after every `reset`."""
    for path in data.iterdir():
        if path.name != "lang":
            (folder / path.name).symlink_to(path)
    languages = folder / "lang"
    languages.mkdir()
    for family in (data / "lang").iterdir():
        (languages / family.name).symlink_to(family)
    for path in (data / "lang").glob("*/*"):
        link = languages / path.name.lower()
        if not link.exists():
            link.symlink_to(path)


@cache
def synthesizer() -> Synthesizer:
    """The synthesizer of this process."""
    return Synthesizer()
