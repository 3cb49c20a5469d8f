"""Scores given texts by the decoder's probabilities: each prompt is read once for all that may follow it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.evaluate.writing.writer import Read, Writer, repeated_rows
from mmjax.models.decoders.any_decoder import AnyCache, AnyDecoder


def log_likelihoods(
    writer: Writer, read: Read, texts: Sequence[Sequence[int]], at_once: int = 64
) -> Float[np.ndarray, "b c"]:
    """The log-probability of each text behind each prompt that was read: the sum over its words.

    read: prompts, with room for the longest text. texts: of one id at least. at_once: the most of them, over all
    prompts, of which the decoder computes logits at a time.
    """
    rows, length = len(read.most), max(map(len, texts))
    size = 1 << (length - 1).bit_length()
    ids, mask = np.zeros((len(texts), size), np.int32), np.zeros((len(texts), size), bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
    some = min(max(1, at_once // rows), 1 << (len(texts) - 1).bit_length())
    found, program = [], writer.program(_scored, partial(_scored, writer.decoder))
    for start in range(0, len(texts), some):
        part, real = ids[start : start + some], mask[start : start + some]
        short = some - len(part)
        part, real = (np.concatenate([each, each[:1].repeat(short, 0)]) for each in (part, real))
        scores = program(writer.params, read.logits, read.cache, part, real)
        found.append(np.asarray(scores)[:, : some - short])
    return np.concatenate(found, axis=1)


def _scored(
    decoder: AnyDecoder,
    params: Any,
    logits: Float[Array, "b v"],
    cache: AnyCache,
    ids: Int[Array, "c l"],
    mask: Bool[Array, "c l"],
) -> Float[Array, "b c"]:
    rows, texts = len(logits), len(ids)
    cache, logits = repeated_rows((cache, logits), texts)
    ids, mask = (jnp.tile(each, (rows, 1)) for each in (ids, mask))
    result: Any = decoder.apply({"params": params}, ids[:, :-1], cache, mask[:, :-1], method="extend")
    behind: Any = decoder.apply({"params": params}, result[0], method="logits")
    logits = jnp.concatenate([logits[:, None], behind], axis=1)
    each = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask, each, 0), axis=1).reshape(rows, texts)
