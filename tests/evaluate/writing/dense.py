"""A small decoder, and its words by a pass over the whole text for each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from mmjax.models.decoders.text import TextDecoder
from mmjax.models.layers.decoder_blocks import DecoderBlocks


def small_decoder(vocab=23, length=40, seen=3, **fields) -> tuple[Any, Any]:
    """A decoder, and parameters by which its words differ; of views it reads `seen` tokens."""
    decoder = TextDecoder(vocab=vocab, length=length, blocks=DecoderBlocks(width=16, depth=2, heads=2), **fields)
    read = {**fields.get("context", {}), **fields.get("prefix", {})}
    views = {name: (jnp.zeros((1, seen, 16)), jnp.ones((1, seen), bool)) for name in read}
    make = jax.jit(
        lambda: meta.unbox(decoder.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), None, views, method=whole))
    )
    return decoder, jax.tree.map(lambda x: 20 * x if x.ndim > 1 else x, make()["params"])


def whole(decoder, *arguments):
    return decoder.logits(decoder(*arguments))


PROGRAMS = {}  # by the decoder's id, which its entry keeps from being another's


def _program(decoder):
    if id(decoder) not in PROGRAMS:
        PROGRAMS[id(decoder)] = (
            decoder,
            jax.jit(lambda params, *given: decoder.apply({"params": params}, *given, method=whole)),
        )
    return PROGRAMS[id(decoder)][1]


def all_logits(decoder, params, ids, views=None):
    """Behind each word of a text, [L, V] in float64."""
    room = decoder.length - (sum(one[0].shape[1] for name, one in (views or {}).items() if name in decoder.prefix))
    row = np.zeros((1, room), np.int32)
    row[0, : len(ids)] = ids
    logits = _program(decoder)(params, row, np.arange(room)[None] < len(ids), views or {})
    return np.asarray(logits, np.float64)[0, : len(ids)]


def dense_logits(decoder, params, ids, views=None):
    return all_logits(decoder, params, ids, views)[-1]


def log_softmax(logits):
    return (
        logits
        - logits.max(-1, keepdims=True)
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    )


def dense_greedy(decoder, params, prompt, most, eos=(), views=None, vocab=None):
    """The likeliest of the first `vocab` words, and their log-probabilities."""
    ids, scores = list(prompt), []
    for _ in range(most):
        shares = log_softmax(dense_logits(decoder, params, ids, views))
        ids.append(int(shares[:vocab].argmax()))
        scores.append(shares[ids[-1]])
        if ids[-1] in eos:
            break
    return ids[len(prompt) :], scores
