"""The speech of `asked_emoji`: questions, as eSpeak NG speaks them."""

from mmjax.data.datasets.spoken_emoji.catalogue import TEST_VOICES, VALIDATION_VOICES, Utterance, hashed
from mmjax.data.datasets.spoken_emoji.espeak import synthesizer
from mmjax.data.datasets.spoken_emoji.example import flac, resample, trim

# Validation and test have those of `spoken_emoji`, whose variants, and so speakers, training doesn't hear there either.
VOICES = {"train": ("en-us+f5", "en-gb-x-rp+m7"), "validation": VALIDATION_VOICES, "test": TEST_VOICES}


def utterance(example_id: str, split: str) -> Utterance:
    """The way an example's question is spoken, drawn by hash: of the split's voices, in training at more speeds."""

    def draw(what: str, low: int, high: int) -> int:
        return low + hashed(f"asked/{what}/{example_id}") % (high - low + 1)

    voices = VOICES[split]
    voice = voices[draw("voice", 0, len(voices) - 1)]
    if split != "train":
        return Utterance(voice, draw("rate", 150, 185), draw("pitch", 42, 58), 50)
    return Utterance(voice, draw("rate", 135, 215), draw("pitch", 25, 75), draw("spread", 30, 75))


def spoken(question: str, said: Utterance) -> bytes:
    """The question as FLAC, 16 kHz, mono. It depends on the arguments alone, not on earlier calls in this process."""
    speaker = synthesizer()
    speaker.reset()
    samples = speaker.speak(question, said.voice, rate=said.rate, pitch=said.pitch, spread=said.spread)
    return flac(trim(resample(samples, speaker.sample_rate)))
