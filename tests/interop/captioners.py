"""What the tests of captioners of Hugging Face's compute of ours: a decoder beside the tokens of pictures."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.experiment.graph import build
from tests.data import vocabularies


def bert_tokenizer(folder):
    """BERT's tokenizer in a new folder, as a `tokenizer.json` alone; and as transformers opens it."""
    folder.mkdir()
    vocabularies.write_bert(folder)
    model = tokenizer_json(folder)
    for file in folder.iterdir():
        file.unlink()
    (folder / "tokenizer.json").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def parts_of(bundle):
    """The picture's tower and the decoder, each with its parameters."""
    params = jax.tree.map(jnp.asarray, bundle.variables["params"])
    (name,) = bundle.config.objectives
    tower = build(bundle.config.towers["image"]).bind({"params": params["towers_image"]})
    decoder = build(bundle.config.objectives[name]).decoder
    return tower, decoder.bind({"params": params[f"objectives_{name}"]["decoder"]})


def batch(pictures, ids, mask, **more: Any) -> dict[str, Any]:
    """What the loss takes, of which all is there."""
    there = {f"{name}_valid": np.ones(len(ids), bool) for name in ("text", "image")}
    return {"image": pictures, "text": ids, "text_mask": mask, "index": np.arange(len(ids)), **there, **more}


def logits(bundle, pictures, ids, mask, together=None):
    """Of each next word, `[B, L, V]`."""
    tower, decoder = parts_of(bundle)
    with jax.default_matmul_precision("highest"):

        def run(pictures):
            return decoder.logits(decoder(ids, mask, {"image": tower.tokens(pictures)}, together))

        return jax.jit(run)(pictures)


def greedy(bundle, pictures, prompts, count, together=None):
    """The likeliest words after each prompt, one by one, of all rows at once, by the memory."""
    length = max(map(len, prompts))
    ids = np.array([[*prompt, *[0] * (length - len(prompt))] for prompt in prompts], np.int32)
    lengths = np.array([len(prompt) for prompt in prompts])
    mask = np.arange(length) < lengths[:, None]
    tower, decoder = parts_of(bundle)

    def begun(pictures):
        views = {"image": tower.tokens(pictures)}
        ahead = views["image"][0].shape[1] if decoder.prefix else 0
        states, cache = decoder.prefill(ids, mask, views, together, slots=ahead + length + count)
        return decoder.logits(states[np.arange(len(ids)), lengths - 1]).argmax(axis=-1), cache

    def further(carried, _):
        word, cache = carried
        states, cache = decoder.extend(word[:, None], cache)
        return (decoder.logits(states[:, 0]).argmax(axis=-1), cache), word

    with jax.default_matmul_precision("highest"):
        _, words = jax.jit(lambda pictures: jax.lax.scan(further, begun(pictures), length=count))(pictures)
    return np.asarray(words).T
