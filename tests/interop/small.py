"""Small models with random numbers, as bundles, in the layouts of other projects."""

import dataclasses
import tempfile
from pathlib import Path

import fiddle as fdl
import jax
import numpy as np

from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import PickCaption, Prompt, Tokenize
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf import bert
from mmjax.interop.hf import layout as hf_layout
from mmjax.interop.open_clip import layout as open_clip_layout
from mmjax.interop.sentence_transformers import layout as sentence_transformers_layout
from tests.data.vocabularies import write_bert

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
    family = hf_layout.family_of(CLIP, "test")
    parts = family.parts(CLIP)
    words = fdl.Config(Subwords, parts.towers["text"].vocab)
    transforms = {
        "image": (fdl.Config(Decode), fdl.Config(Resize, parts.towers["image"].size)),
        "text": (fdl.Config(Tokenize, words, parts.towers["text"].length, bos=True, empty="keep"),),
    }
    return randomised(bundles.stand_in(parts.towers, parts.objectives, transforms), seed)


def hf_folder(folder: Path, seed: int = 0) -> Path:
    return hf_layout.write(clip(seed), folder)


def sentences_folder(folder: Path, seed: int = 0) -> Path:
    """As sentence-transformers writes a BERT with a mean, a Dense and a prompt."""
    with tempfile.TemporaryDirectory() as vocabulary:
        write_bert(Path(vocabulary))
        tokenizer = SubwordTokenizer(tokenizer_json(Path(vocabulary)))
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = bert.text({**sizes, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 16}, pooler=False)
    tower.pooling, tower.embed_dim, tower.projection_bias, tower.projection_tanh = "mean", 6, True, True
    cut = fdl.Config(Tokenize, fdl.Config(Subwords, tokenizer.vocab_size), 12, bos=True, empty="keep")
    chain = (fdl.Config(PickCaption, empty="keep"), fdl.Config(Prompt, "query: "), cut)
    bundle = randomised(bundles.stand_in({"text": tower}, {}, {"text": chain}), seed)
    pooler = {"pooler.dense.weight": np.zeros((8, 8), np.float32), "pooler.dense.bias": np.zeros(8, np.float32)}
    return sentence_transformers_layout.write(
        dataclasses.replace(bundle, tokenizers={"text": tokenizer}, extras=pooler), folder
    )


def open_clip_folder(folder: Path, seed: int = 0) -> Path:
    return open_clip_layout.write(clip(seed), folder, exact=False)
