"""What torchaudio.npz holds: a sound, int16, and by name what torchaudio makes of it with these fields of ours."""

from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("torchaudio.npz")

LOG_MEL: dict[str, dict[str, Any]] = {
    "htk": {"scale": "htk", "mels": 64},
    "htk_whole_window": {
        "scale": "htk",
        "window": 512,
        "hop": 250,
        "fft": 512,
        "mels": 40,
        "fmin": 0.0,
        "fmax": 7_600.0,
    },
    "slaney": {"scale": "slaney", "mels": 64, "fft": 1_024},
}
KALDI: dict[str, dict[str, Any]] = {
    "kaldi_hann": {"shape": "hann", "mels": 128},
    "kaldi_povey": {"shape": "povey", "mels": 80, "full_scale": 32_768.0, "fmax": 7_600.0},
}
