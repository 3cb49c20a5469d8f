"""Encoded views, as objectives get them: tokens and embedding, and what a masked objective predicts."""

from flax import struct
from jaxtyping import Array, Bool, Float, Int, Shaped


class Encoded(struct.PyTreeNode):
    """A view, encoded: of an unmasked view all that there is, of a masked one what every objective may read."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of the patches or words that were encoded."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the tower makes of the tokens; not normalised."""
    prefix: int = struct.field(pytree_node=False)
    """How many tokens stand before the patches' (CLS)."""


class EncodedKept(Encoded):
    """A view of some patches (`PatchMasking`): the encoder saw those in `keep`, and the others may be predicted."""

    patches: Shaped[Array, "b n ..."]
    """All patches as they were: pixels or log-mel values `[B,N,P]`, or token ids `[B,L]`."""
    patch_mask: Bool[Array, "b n"]
    """Which of them are real."""
    keep: Int[Array, "b k"]
    """The ids of the patches that were encoded, -1 in empty slots."""
    grid: tuple[int, ...] = struct.field(pytree_node=False)
    """How the N patches lie, e.g. (rows, columns)."""


class EncodedCorrupted(Encoded):
    """A view of a text some of whose tokens were hidden in their places (`Corrupt`)."""

    ids: Int[Array, "b l"]
    """The token ids as they were."""
    chosen: Bool[Array, "b l"]
    """The positions to be predicted."""
    table: Float[Array, "v d"] | None = None
    """Of the tower the vector of each token id, for a head that is tied to it; None where the tower has none."""


class EncodedTogether(struct.PyTreeNode):
    """Several inputs, encoded in one sequence."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of each part, one part after the other."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the first part's tower makes of the tokens; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are its own of the sequence, no prefix. Patches of what an example lacks aren't real."""
    prefix: int = struct.field(pytree_node=False)


class EncodedFused(struct.PyTreeNode):
    """What a fusion encoder makes of views that were encoded each by its own tower."""

    embedding: Float[Array, "b e"]
    """Of all parts together; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are the fusion's, in the places of the tower's, and those of what an example lacks aren't
    real; the rest (its own embedding, the patches or words to be predicted) is as its tower's encoding has it."""
