"""Encoded views, as objectives get them: tokens and embedding, and the targets of a masked objective."""

from dataclasses import KW_ONLY

from flax import struct
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmjax.errors import UserError
from mmjax.models.layers.masks import TokensAndMask


class Encoded(struct.PyTreeNode):
    """An encoded view: everything of an unmasked view; of a masked one the part that every objective may read."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of the patches or words that were encoded."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """The tower's embedding of the tokens; not normalised."""
    prefix: int = struct.field(pytree_node=False)
    """The number of tokens before the patches' (CLS)."""
    _: KW_ONLY
    front: TokensAndMask | None = None
    """What the tower gives its trunk for a fusion through it, and which of it is real; None where no fusion can go
    through its trunk (`has_front`), or it has none."""

    def read(self, front: bool) -> TokensAndMask:
        """The tokens for a fusion, or, with `front`, what goes in before them.

        Raises UserError where the tower has no trunk that a fusion goes through.
        """
        if not front:
            return self.tokens, self.token_mask
        if self.front is None:
            raise UserError(
                "a fusion through a trunk reads what towers give it, and this view's tower has no such trunk"
            )
        return self.front


class EncodedKept(Encoded):
    """A view of some patches (`PatchMasking`): the encoder read those in `keep`, and the others may be predicted."""

    patches: Shaped[Array, "b n ..."]
    """All patches as they were: pixels or log-mel values `[B,N,P]`, or token ids `[B,L]`."""
    patch_mask: Bool[Array, "b n"]
    """A mask of the real ones."""
    keep: Int[Array, "b k"]
    """The ids of the patches that were encoded, -1 in empty slots."""
    grid: tuple[int, ...] = struct.field(pytree_node=False)
    """The layout of the N patches, e.g. (rows, columns)."""


class EncodedCorrupted(Encoded):
    """A view of a text with some tokens hidden in their places (`Corrupt`)."""

    ids: Int[Array, "b l"]
    """The original token ids."""
    chosen: Bool[Array, "b l"]
    """The positions to be predicted."""
    table: Float[Array, "v d"] | None = None
    """The tower's vector of each token id, for a head that is tied to it; None where the tower has none."""
    normed: Float[Array, "b k d"] | None = None
    """The tokens after the last LayerNorm, where the tower has it for the pooled token alone (`norm_pooled`)."""


class EncodedCorruptedPatches(Encoded):
    """A view with some patches hidden in their places (`CorruptPatches`)."""

    hidden: Bool[Array, "b n"]
    """The patches in whose place the encoder read the mask token."""
    normed: Float[Array, "b k d"] | None = None
    """As `EncodedCorrupted`'s."""


def read_by_head(view: EncodedCorrupted | EncodedCorruptedPatches) -> Float[Array, "b k d"]:
    """The tokens from which a head predicts what is hidden: after a last LayerNorm, where the tower has one."""
    return view.tokens if view.normed is None else view.normed


class EncodedRegions(Encoded):
    """A view of regions, the features of some of which are hidden in their places (`CorruptRegions`)."""

    features: Float[Array, "b n f"]
    """The original features of all regions."""
    real: Bool[Array, "b n"]
    """A mask of the real regions."""
    chosen: Bool[Array, "b n"]
    """The regions to be predicted."""


class EncodedTogether(struct.PyTreeNode):
    """Several inputs, encoded in one sequence."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of each part, one part after the other."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """The first part's tower's embedding of the tokens; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are its own of the sequence, no prefix. Patches of a missing input aren't real."""
    prefix: int = struct.field(pytree_node=False)


class EncodedFused(struct.PyTreeNode):
    """The output of a fusion encoder over views that were encoded each by its own tower."""

    embedding: Float[Array, "b e"]
    """The embedding of all parts together; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are the fusion's, in the places of the tower's, and those of a missing input aren't real;
    the rest (its own embedding, the patches or words to be predicted) is as its tower's encoding has it.
    """
