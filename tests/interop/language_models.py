"""What the tests of language models of Hugging Face's compute of ours."""

from typing import Any

import jax
import numpy as np

from mmjax.experiment.graph import build

IDS = np.array([[5, 17, 3, 88, 41, 2, 9, 0, 0], [61, 4, 0, 0, 0, 0, 0, 0, 0], [7, 7, 23, 90, 15, 66, 31, 12, 118]])
MASK = np.arange(9) < np.array([7, 2, 9])[:, None]
BATCH: dict[str, Any] = {
    "text": IDS.astype(np.int32), "text_mask": MASK, "text_valid": np.ones(3, bool), "index": np.arange(3)
}  # fmt: skip


def decoder_of(bundle):
    """The decoder with its parameters."""
    objective = build(bundle.config.objectives["words"])
    return objective.decoder.bind({"params": bundle.variables["params"]["objectives_words"]["decoder"]})


def logits(bundle, ids=IDS, mask: Any = MASK):
    """Of each next word, `[B, L, V]`."""
    decoder, variables = decoder_of(bundle).unbind()
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda v, *x: decoder.apply(v, *x, method=lambda d, *x: d.logits(d(*x))))(variables, ids, mask)


def greedy(bundle, prompts, count):
    """The likeliest words after each prompt, one by one, of all rows at once."""
    length = max(map(len, prompts))
    ids = np.array([[*prompt, *[0] * (length - len(prompt))] for prompt in prompts])
    mask, decoder = np.arange(length) < np.array([len(prompt) for prompt in prompts])[:, None], decoder_of(bundle)
    with jax.default_matmul_precision("highest"):
        states, cache = decoder.prefill(ids, mask, slots=length + count)
        word = decoder.logits(states[np.arange(len(ids)), mask.sum(axis=1) - 1]).argmax(axis=-1)
        words = [word]
        for _ in range(count - 1):
            states, cache = decoder.extend(word[:, None], cache)
            word = decoder.logits(states[:, 0]).argmax(axis=-1)
            words.append(word)
    return np.stack(words, axis=1)
