"""Texts that are written with a memory are those of the dense decoder, word by word, alone or in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.errors import UserError
from mmjax.inference.writing.sampling import Sampling
from mmjax.inference.writing.writer import Writer
from mmjax.models.decoders.text import TextDecoder
from mmjax.models.layers.decoder_blocks import DecoderBlocks

VOCAB, LENGTH = 23, 40
PROMPTS = [[3, 4, 5], [7], [2, 9, 11, 4, 5, 6, 7]]


def made(**fields):
    decoder = TextDecoder(
        vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(width=16, depth=2, heads=2), **fields
    )
    views = {name: (jnp.zeros((1, 3, 16)), jnp.ones((1, 3), bool)) for name in fields.get("context", {})}
    params = meta.unbox(decoder.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), None, views, method=whole))
    return decoder, jax.tree.map(lambda x: 30 * x if x.ndim > 1 else x, params["params"])


def whole(decoder, *arguments):
    return decoder.logits(decoder(*arguments))


def dense_logits(decoder, params, ids, views=None):
    """Of the word behind `ids`, by a pass over the whole text."""
    ids = jnp.asarray([ids], jnp.int32)
    return np.asarray(decoder.apply({"params": params}, ids, None, views or {}, method=whole)[0, -1], np.float64)


def dense_greedy(decoder, params, prompt, most, eos=(), views=None):
    ids, scores = list(prompt), []
    for _ in range(most):
        logits = dense_logits(decoder, params, ids, views)
        ids.append(int(logits.argmax()))
        scores.append(logits.max() - np.log(np.exp(logits - logits.max()).sum()) - logits.max())
        if ids[-1] in eos:
            break
    return ids[len(prompt) :], scores


def written(writer, prompts, most, sampling=Sampling(), seed=0, every=None, **more):
    texts, given = writer.begin(writer.read(prompts, most=most, **more), sampling, seed)
    for until in range(1, most + 1) if every else [most]:
        texts = writer.advance(writer.params, texts, given, until)
    counts = np.asarray(texts.counts)[: len(prompts)]
    return [(np.asarray(texts.ids)[i, :n].tolist(), np.asarray(texts.scores)[i, :n]) for i, n in enumerate(counts)]


@pytest.fixture(scope="module")
def model():
    return made()


def test_words_and_log_probabilities_are_the_dense_decoder_s(model):
    for prompt, (ids, scores) in zip(PROMPTS, written(Writer(*model), PROMPTS, 12), strict=True):
        wanted, wanted_scores = dense_greedy(*model, prompt, 12)
        assert ids == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-4)
