"""Small models with random numbers, as bundles, in the layouts of other projects."""

from pathlib import Path

import fiddle as fdl
import jax
import numpy as np

from mmjax.data.captions import Tokenize
from mmjax.data.subwords import Subwords
from mmjax.data.transforms import Decode, Resize
from mmjax.experiment import build
from mmjax.interop import bundle as bundles
from mmjax.interop import hf, openclip
from mmjax.interop.bundle import Bundle

CLIP = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "projection_dim": 6,
    "text_config": {
        "vocab_size": 49_408,  # OpenAI's, which open_clip's folders without a tokenizer are read with
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 7,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    },
}


def randomised(bundle_config, seed: int = 0, source: str = "") -> Bundle:
    """A bundle of the config, with random numbers."""
    rng = np.random.default_rng(seed)
    shapes = bundles.variables_of(build(bundle_config))
    variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    return Bundle(bundle_config, variables, {}, source)


def clip(seed: int = 0) -> Bundle:
    """As CLIPModel of Hugging Face; it brings no tokenizer."""
    family = hf.family_of(CLIP, "test")
    parts = family.parts(CLIP)
    words = fdl.Config(Subwords, parts.towers["text"].vocab)
    transforms = {
        "image": (fdl.Config(Decode), fdl.Config(Resize, parts.towers["image"].size)),
        "text": (fdl.Config(Tokenize, words, parts.towers["text"].length, bos=True, empty="keep"),),
    }
    return randomised(bundles.stand_in(parts.towers, parts.objectives, transforms), seed)


def hf_folder(folder: Path, seed: int = 0) -> Path:
    return hf.write(clip(seed), folder)


def open_clip_folder(folder: Path, seed: int = 0) -> Path:
    return openclip.write(clip(seed), folder, exact=False)
