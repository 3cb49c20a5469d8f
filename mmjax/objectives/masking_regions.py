"""Masking of regions: chooses those whose features are to be predicted, and hides most of them from the encoder."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmjax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CorruptRegions:
    """Hides the features of a random part of each picture's regions, whose boxes stay (LXMERT: Tan and Bansal 2019,
    arXiv:1908.07490; ViLBERT: Lu et al. 2019, arXiv:1908.02265).

    Each region is chosen for itself, so that their number varies. A chosen one's features then become zeros, those of
    another region, or stay: 0.8, 0.1 and 0.1 in LXMERT's code, 0.9, 0 and 0.1 in ViLBERT's (the defaults). LXMERT takes
    the other region from any picture; here it is one of the same picture, so that a picture's mask depends on no other.

    Attributes:
        rate: the rate at which a region is chosen.
        zeroed: the part of the chosen whose features become zeros.
        other: the part of the chosen that gets another region's features.
    """

    rate: float = 0.15
    zeroed: float = 0.9
    other: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise UserError(
                f"CorruptRegions(rate={self.rate}): the rate at which regions are chosen must be above 0 and at most 1"
            )
        if self.zeroed < 0 or self.other < 0 or self.zeroed + self.other > 1 + 1e-9:
            raise UserError(
                f"CorruptRegions(zeroed={self.zeroed}, other={self.other}): both must be at least 0, and at most 1 "
                "together"
            )

    def check_ids(self, path: str, tower: str, pieces: int, vocabulary: int | None) -> None:
        """Raises UserError where the tower reads ids: there are no features in them; see `Corrupt`."""
        if vocabulary is not None:
            raise UserError(f"{path} hides features of regions, and {tower} reads token ids: use Corrupt for texts")

    def draw(
        self, key: PRNGKeyArray, index: Int[Array, " b"], features: Float[Array, "b n f"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n f"], Bool[Array, "b n"]]:
        """Returns the features that the encoder reads, and a mask of the chosen regions; drawn for each example alone.

        Args:
            key: of the step and the view.
            index: each example's row in the global batch.
            features: of all regions.
            mask: the real ones; no other is chosen, or gives its features.
        """

        def draw(
            index: Int[Array, ""], features: Float[Array, "n f"], mask: Bool[Array, " n"]
        ) -> tuple[Float[Array, "n f"], Bool[Array, " n"]]:
            which, what, whose = jax.random.split(jax.random.fold_in(key, index), 3)
            chosen = mask & (jax.random.uniform(which, mask.shape, jnp.float32) < self.rate)
            action = jax.random.uniform(what, mask.shape, jnp.float32)
            # The n real regions by number, of which each place draws one; without any, nothing is chosen.
            places = jnp.argsort(~mask, stable=True)
            drawn = jax.random.randint(whose, mask.shape, 0, jnp.maximum(mask.sum(), 1))
            others = features[places[drawn]]
            zeroed = chosen & (action < self.zeroed)
            replaced = chosen & (action >= self.zeroed) & (action < self.zeroed + self.other)
            seen = jnp.where(zeroed[:, None], 0, jnp.where(replaced[:, None], others, features))
            return seen, chosen

        return jax.vmap(draw)(index, features, mask)
