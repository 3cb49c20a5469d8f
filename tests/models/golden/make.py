"""Makes torchaudio.npz: a sound, and the features that torchaudio makes of it.

    pip install --no-deps --target /tmp/torchaudio torchaudio==2.11.0
    rm /tmp/torchaudio/torchaudio/lib/_torchaudio*    # is for one torch alone, and not called here
    PYTHONPATH=/tmp/torchaudio python -m tests.models.golden.make

The tests read the file, and need no torchaudio.
"""

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torchaudio  # pyright: ignore[reportMissingImports]

from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from tests.models.golden.fields import FILE, KALDI, LOG_MEL


def sound() -> np.ndarray:
    """A third of a second: a glide over most of the bands, noise, and an offset; int16."""
    rng, samples = np.random.default_rng(0), 5_000
    glide = np.sin(2 * np.pi * np.cumsum(np.geomspace(80, 7_000, samples)) / 16_000)
    return (9_000 * glide + 900 * rng.standard_normal(samples) + 200).astype(np.int16)


def log_mel(waveform: np.ndarray, fields: dict[str, Any]) -> np.ndarray:
    """`torchaudio.transforms.MelSpectrogram` and the log, of the frames that lie within the waveform."""
    front = LogMel(**fields)
    transform = torchaudio.transforms.MelSpectrogram(
        front.rate, front.fft, front.window, front.hop, front.fmin, front.fmax, n_mels=front.mels, center=False,
        mel_scale=front.scale, norm="slaney" if front.scale == "slaney" else None,
    )  # fmt: skip
    early = (front.fft - front.window) // 2  # it puts a window into the middle of its transform
    last = front.fft - front.window - early
    padded = np.pad(waveform.astype(np.float32) / 32_768, (early, last))
    return torch.log(transform(torch.from_numpy(padded)) + front.floor).numpy().T


def kaldi(waveform: np.ndarray, fields: dict[str, Any]) -> np.ndarray:
    """`torchaudio.compliance.kaldi.fbank`, as AST calls it, without dither."""
    front = KaldiFbank(**fields)
    scaled = torch.from_numpy(waveform.astype(np.float32) * (front.full_scale / 32_768))[None]
    return torchaudio.compliance.kaldi.fbank(
        scaled, sample_frequency=front.rate, num_mel_bins=front.mels, low_freq=front.fmin, high_freq=front.fmax or 0.0,
        window_type={"hann": "hanning", "povey": "povey"}[front.shape], preemphasis_coefficient=front.emphasis,
        dither=0.0, frame_length=1e3 * front.window / front.rate, frame_shift=1e3 * front.hop / front.rate,
        htk_compat=True, use_energy=False,
    ).numpy()  # fmt: skip


def main() -> None:
    waveform = sound()
    made: dict[str, Any] = {"sound": waveform, **{name: log_mel(waveform, fields) for name, fields in LOG_MEL.items()}}
    made |= {name: kaldi(waveform, fields) for name, fields in KALDI.items()}
    np.savez_compressed(FILE, **made)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
