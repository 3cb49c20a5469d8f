"""Views: what of a modality is encoded (all of it, or a random part), and what an objective is handed of it."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from mmjax.errors import UserError
from mmjax.objectives.masking import Masking

VALID = "_valid"


@dataclass(frozen=True)
class View:
    """What of a modality is to be encoded. Equal views are encoded once, whoever asks for them."""

    modality: str
    masking: Masking | None = None

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """This view's own key of the step's: two views of one modality are masked independently."""
        return jax.random.fold_in(key, zlib.crc32(repr(self).encode()))


@dataclass(frozen=True)
class Together:
    """Several modalities in one sequence, for towers that hold the same `mmjax.models.Trunk` (M3AE,
    arXiv:2205.14204). An example that lacks one of them is encoded without it."""

    parts: tuple[View, ...]

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """This view's own key of the step's."""
        return jax.random.fold_in(key, zlib.crc32(repr(self).encode()))


def parts(view: View | Together) -> tuple[View, ...]:
    """The views of one modality that a view is made of."""
    return view.parts if isinstance(view, Together) else (view,)


class Encoded(NamedTuple):
    """A view, encoded. `patches` and `patch_mask` are what a masked objective predicts (None for an unmasked view)."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of the patches that were encoded."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the tower makes of the tokens; not normalised."""
    patches: Shaped[Array, "b n ..."] | None
    """All patches as they were before masking: pixels or log-mel values `[B,N,P]`, or token ids `[B,L]`."""
    patch_mask: Bool[Array, "b n"] | None
    keep: Int[Array, "b k"] | None
    """For a view of some patches the ids of the patches that were encoded, -1 in empty slots."""
    chosen: Bool[Array, "b l"] | None
    """For a `Corrupt` view the positions to be predicted."""
    grid: tuple[int, ...]
    """How the N patches lie, e.g. (rows, columns)."""
    prefix: int
    """How many tokens stand before the patches' (CLS)."""
    table: Float[Array, "v d"] | None = None
    """Of a text tower the vector of each token id, for a head that is tied to it; None where the tower has none."""


class EncodedTogether(NamedTuple):
    """Several modalities, encoded in one sequence."""

    tokens: Float[Array, "b k d"]
    """The prefix tokens, then those of each part, one part after the other."""
    token_mask: Bool[Array, "b k"]
    embedding: Float[Array, "b e"]
    """What the first part's tower makes of the tokens; not normalised."""
    parts: tuple[Encoded, ...]
    """Each part; its tokens are its own of the sequence, no prefix. Patches of what an example lacks aren't real."""
    prefix: int


class Objective(Protocol):
    """What a Linen module must have to be an objective. `per_example` runs inside the scan over microbatches."""

    def views(self) -> tuple[View | Together, ...]:
        """What must be encoded."""
        ...

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array]) -> Any:
        """All that can be done example by example (heads, decoders): a pytree of `[B, ...]`."""
        ...

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss and metrics from all examples' outputs; runs once, on the global batch."""
        ...


def valid(batch: Mapping[str, Array], modality: str) -> Bool[Array, " b"]:
    """Which examples have the modality: `batch["<modality>_valid"]`."""
    return entry(batch, modality + VALID)


def usable(objective: Any, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
    """Which examples have what an objective reads: every view of it, of several modalities together one at least."""
    each = [jnp.any(jnp.stack([valid(batch, one.modality) for one in parts(v)]), axis=0) for v in objective.views()]
    return jnp.all(jnp.stack(each), axis=0)


def entry(batch: Mapping[str, Array], name: str) -> Array:
    """`batch[name]`, or an error that says what the batch holds."""
    if name not in batch:
        raise UserError(f"the batch has no {name!r}; it holds {', '.join(sorted(batch))}")
    return batch[name]


def selected(rows: Bool[Array, " b"], x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
    """`x` with zeros in the rows that aren't among `rows`. To be done before anything is computed of `x`: a NaN that
    is selected away only afterwards comes back in the gradient, where it is multiplied by 0."""
    return jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, 0)


def present(batch: Mapping[str, Shaped[Array, "b *e"]]) -> dict[str, Shaped[Array, "b *e"]]:
    """The batch, with zeros where an example lacks the modality of an entry that could hold, or make, a NaN.

    Those are floats, and token ids, of which those outside the vocabulary have vectors of NaN. Bytes and 16-bit
    waveforms are finite whatever they are, and stay as they are. What comes from the pipeline has zeros there already.
    Selected later, a NaN would have gone through a tower, whose gradient it spoils though the row has no weight.
    """
    rows = {name.removesuffix(VALID): there for name, there in batch.items() if name.endswith(VALID)}

    def cleaned(name: str, x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
        owners = [modality for modality in rows if name == modality or name.startswith(f"{modality}_")]
        spoils = jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == jnp.int32
        return selected(rows[max(owners, key=len)], x) if owners and spoils else x

    return {name: cleaned(name, x) for name, x in batch.items()}
