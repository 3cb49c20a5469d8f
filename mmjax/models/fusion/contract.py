"""The contract of fusion encoders."""

from collections.abc import Mapping
from typing import Any, Protocol

from jaxtyping import Array, Float, Key

from mmjax.models.layers.masks import TokensAndMask


class Fusion(Protocol):
    """A Linen module over the tokens of inputs that towers have encoded (FLAVA, ALBEF, ViLBERT).

    One whose class has `reads = "embeddings"` is given each input's embedding instead, as its only token `[B,1,E]`, and
    gives it back as it came (GMU, tensor fusion). One with `reads = "fronts"` is given what each tower gives the trunk
    that it has of the fusion, before any layer (`ThroughTrunk`); with `reads = "front"` it is given that of its
    `reader`, and the tokens of all others (a `Cross` with a trunk).
    """

    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens after they have met, and an embedding of all together.

        Args:
            tokens: by the input's name, in the order of the objective's parts: what its tower gave, `[B,N,D]`, and
                which of them are real. Widths may differ. A row without a real token of an input lacks it.
            train: whether dropout acts.
            keys: each example's key for it; None: made of the `dropout` key (`mmjax.models.layers.dropout`).

        Returns:
            Of each input its tokens, as many and in the same places (of another width perhaps, or as they came, where
            nothing changes them), with their mask; and the embedding `[B,E]`, float32, not normalised.
        """
        ...


def reads_front(fusion: Any, input: str) -> bool:
    """True if a fusion is given what an input's tower gives its trunk in the place of what comes out of it."""
    reads = getattr(fusion, "reads", "tokens")
    return reads == "fronts" or (reads == "front" and fusion.reader == input)


def reads_embeddings(fusion: Any) -> bool:
    """True if a fusion is given each input's embedding in the place of its tokens."""
    return getattr(fusion, "reads", "tokens") == "embeddings"
