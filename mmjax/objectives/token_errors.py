"""The sums of objectives that predict something of single tokens, and what they come to over the whole batch."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

from mmjax.objectives.numerics import at_least_fp32, weighted_mean


class TokenErrors(NamedTuple):
    """The sums of each caption: cross-entropy and hits, and the number of their tokens."""

    total: Float[Array, " b"]
    hits: Int[Array, " b"]
    count: Int[Array, " b"]
    penalty: Float[Array, " b"] | None = None
    """A penalty of each caption besides; None: there is none."""
    unlikely: Float[Array, " b"] | None = None
    """The unlikelihood of words that stand before; None: it isn't asked for."""


def averaged(errors: TokenErrors, rows: Bool[Array, " b"]) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss, a mean over all tokens of these rows that are predicted, and as metric the `accuracy` over the same."""
    accuracy = weighted_mean(at_least_fp32(errors.hits), errors.count, rows)
    return weighted_mean(errors.total, errors.count, rows), {"accuracy": accuracy}
