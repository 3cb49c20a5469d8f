"""Perplexity and bits of language models, from summed losses."""

import math

from mmjax.errors import UserError


def language_scores(nats: float, tokens: int, text_bytes: int | None = None) -> dict[str, float]:
    """The `perplexity` exp(nats / tokens) and `bits_per_token` of a text and, where its bytes are given, the
    `bits_per_byte`, which compares models of different tokens.

    nats: the sum of -ln p over the tokens that were predicted.  tokens: their number.  text_bytes: the bytes
    in UTF-8 of the text that these tokens stand for. A perplexity beyond the range of float64 is infinite.

    Raises UserError where tokens or text_bytes are 0 or fewer.
    """
    for name, count in (("tokens", tokens), ("text_bytes", text_bytes)):
        if count is not None and count <= 0:
            raise UserError(f"language_scores({name}={count}): losses are divided by it, so it is at least 1")
    nats = float(nats)
    try:
        perplexity = math.exp(nats / tokens)
    except OverflowError:
        perplexity = math.inf
    bits = nats / math.log(2)
    found = {"perplexity": perplexity, "bits_per_token": bits / tokens}
    return found if text_bytes is None else found | {"bits_per_byte": bits / text_bytes}
