"""Hugging Face's ASTModel (Gong et al. 2021, arXiv:2104.01778), and the one that classifies.

The embedding is the mean of the CLS's and the distillation token's states. Patches go through time first here, through
frequency first there. The layer that classifies has no place in an encoder: it is kept in `Bundle.extras`. Their
feature extractor is `KaldiFbank`, of sounds that are filled up to the full length by zeros of the log-mel; they divide
by twice the standard deviation.
"""

from collections.abc import Mapping
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.labels import label_keys, numbered
from mmjax.interop.hf.vitmae import BLOCK, renamed
from mmjax.interop.parameter_rules import Rule, blocks, leading, norm
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.kaldi_fbank import KaldiFbank

DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
    "frequency_stride": 10,
    "time_stride": 10,
    "max_length": 1_024,
    "num_mel_bins": 128,
}
FIXED = {"qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
EXTRACTOR = {  # preprocessor_config.json
    "sampling_rate": 16_000,
    "num_mel_bins": 128,
    "max_length": 1_024,
    "do_normalize": True,
    "mean": -4.2677393,
    "std": 4.5689974,
}
FIXED_EXTRACTOR = {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": False}
HARMLESS_EXTRACTOR = {"feature_extractor_type", "padding_side", "processor_class"}
WHOLE = "audio_spectrogram_transformer."  # the encoder within the model that classifies
CLASSIFIER = tuple(f"classifier.{layer}.{part}" for layer in ("layernorm", "dense") for part in ("weight", "bias"))


# --- config.json, preprocessor_config.json ---


def audio(config: Values) -> fdl.Config:
    """The audio tower, with the front end that their extractor is by default."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    front = fdl.Config(KaldiFbank, mels=given["num_mel_bins"], mean=EXTRACTOR["mean"], std=2 * EXTRACTOR["std"])
    return fdl.Config(
        AudioTransformer,
        blocks=config_keys.read_blocks(given, "config.json"),
        spectrogram=front,
        patch=(given["patch_size"], given["patch_size"]),
        stride=(given["time_stride"], given["frequency_stride"]),
        samples=KaldiFbank().samples(given["max_length"]),
        attend_padding=True,
        cls=True,
        distill=True,
        pooling="pair",
    )


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `audio`."""
    tower = built.towers["audio"]
    time, frequency = tower.stride
    return config_keys.keys_of(tower.sizes) | {
        "patch_size": tower.patch[0],
        "time_stride": time,
        "frequency_stride": frequency,
        "max_length": tower.spectrogram.frames(tower.samples),
        "num_mel_bins": tower.spectrogram.mels,
    }


def extract(tower: fdl.Config, extractor: Mapping[str, Any], where: str) -> None:
    """Gives the tower the normalisation of a preprocessor_config.json.

    Raises:
        UserError: it asks for what the front end doesn't do, or contradicts config.json.
    """
    given = {key: value for key, value in extractor.items() if key not in HARMLESS_EXTRACTOR}
    given = config_keys.settings(given, where, EXTRACTOR, FIXED_EXTRACTOR)
    front = tower.spectrogram
    for key, value in (("num_mel_bins", front.mels), ("max_length", KaldiFbank().frames(tower.samples))):
        if given[key] != value:
            raise UserError(f"{where}: {key}={given[key]!r}, but in config.json it is {value}")
    if given["sampling_rate"] != KaldiFbank().rate:  # their window and filters are of 16 kHz, whatever it says
        raise UserError(f"{where}: sampling_rate={given['sampling_rate']!r} can't be expressed here, where it is 16000")
    mean, std = (given["mean"], 2 * given["std"]) if given["do_normalize"] else (0.0, 1.0)
    front.mean, front.std = mean, std


def extractor_of(tower: Any) -> dict[str, Any]:
    """The inverse of `extract`."""
    front = tower.spectrogram
    return (
        EXTRACTOR
        | FIXED_EXTRACTOR
        | {
            "feature_extractor_type": "ASTFeatureExtractor",
            "num_mel_bins": front.mels,
            "max_length": front.frames(tower.samples),
            "mean": front.mean,
            "std": front.std / 2,
        }
    )


# --- parameters ---


def rules(built: Parts, path: str = "params/towers_audio") -> list[Rule]:
    """The table of an `ASTModel`."""
    tower = built.towers["audio"]
    times, columns = tower.capacity()
    frames, bands = tower.patch
    stem = "embeddings.patch_embeddings.projection"
    return [
        leading(f"{path}/cls", "embeddings.cls_token", axes=2),
        leading(f"{path}/distill", "embeddings.distillation_token", axes=2),
        Rule(
            f"{path}/position",
            ("embeddings.position_embeddings",),
            lambda table: _turned(table[0], columns, times),
            lambda table: (_turned(table, times, columns)[None],),
        ),
        Rule(  # [D, 1, bands, frames] there
            f"{path}/stem/kernel",
            (f"{stem}.weight",),
            lambda weight: weight.transpose(3, 2, 1, 0).reshape(-1, len(weight)),
            lambda kernel: (kernel.reshape(frames, bands, 1, -1).transpose(3, 2, 1, 0),),
        ),
        Rule(f"{path}/stem/bias", (f"{stem}.bias",)),
        *blocks(f"{path}/transformer", "encoder.layer.{layer}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", "layernorm"),
    ]


def _turned(table: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Positions of `rows` x `columns` patches, row by row, column by column; the first two rows of the table stay."""
    patches = table[2:].reshape(rows, columns, -1).swapaxes(0, 1).reshape(rows * columns, -1)
    return np.concatenate([table[:2], patches])


def _unwrapped(tensors: Arrays) -> Arrays:
    """The encoder within the model that classifies, by its own names."""
    return renamed({name.removeprefix(WHOLE): array for name, array in tensors.items()})


def wrapped(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """The inverse of `unwrapped`; the classes go by their numbers."""
    config |= label_keys(numbered(len(tensors[CLASSIFIER[-1]])))
    return {name if name in CLASSIFIER else WHOLE + name: array for name, array in tensors.items()}


FAMILIES = (
    Family(
        "audio-spectrogram-transformer",
        "ASTModel",
        lambda config: Parts({"audio": audio(config)}, {}),
        describe,
        rules,
        renamed=renamed,
    ),
    Family(
        "audio-spectrogram-transformer",
        "ASTForAudioClassification",
        lambda config: Parts({"audio": audio(config)}, {}),
        describe,
        rules,
        renamed=_unwrapped,
        restored=wrapped,
        extras=CLASSIFIER,
    ),
)
