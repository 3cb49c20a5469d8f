"""The base of MERLOT Reserve's towers: an example's parts of one modality, each encoded by itself."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import part_keys
from mmjax.models.layers.parameters import dense, reserve_init
from mmjax.models.layers.pooling import mean
from mmjax.models.towers.bare import BareTower
from mmjax.models.towers.reserve.encoder import NeighbourPool, ReserveEncoder


class PartsTower(BareTower, kw_only=True):
    """A tower of parts: each is cut into patches, encoded with a CLS, and its patches pooled by few. Its tokens are
    `[B, parts * (1 + M), D]`, of each part the CLS after a linear map, by which parts are compared, and the M pooled
    ones, which a joint transformer reads. Parts that the mask `[B, parts]` leaves out have no real tokens.

    Attributes:
        blocks: of the transformer; pre-LN.
        scaled: whether rotary positions scale channels and don't turn them, as the released code did.
    """

    blocks: Blocks
    scaled: bool = False

    @property
    def embedding_size(self) -> int:
        """The width."""
        return self.blocks.width

    @property
    def each(self) -> int:
        """The number of tokens of a part, 1 + M."""
        raise NotImplementedError

    def setup(self) -> None:
        blocks = self.blocks
        init = reserve_init(self._values())
        self.stem = dense(blocks.width, ("patch", "embed"), init, dtype=blocks.dtype)
        self.encoder = ReserveEncoder(blocks, cls=True, scaled=self.scaled)
        self.neighbours = NeighbourPool(blocks.heads)

    def _values(self) -> int:
        """The number of values of a patch."""
        raise NotImplementedError

    def _patches(self, x: Array) -> Float[Array, "b n p"]:
        """The patches of parts, float32."""
        raise NotImplementedError

    def _places(self) -> Float[Array, "n a"]:
        """The place of each patch along each axis."""
        raise NotImplementedError

    def _groups(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b m r d"]:
        """The patches' tokens by those that are pooled together."""
        raise NotImplementedError

    def tokens(
        self,
        x: Array,
        mask: Bool[Array, "b k"] | None = None,
        keep: None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens of all parts, part by part, and which are real.

        mask: which parts are real.

        Raises UserError where there is a `keep`.
        """
        if keep is not None:
            self.patches(x)
        batch, count = x.shape[:2]
        real = jnp.ones((batch, count), bool) if mask is None else mask
        x = x if mask is None else jnp.where(mask.reshape(batch, count, *[1] * (x.ndim - 2)), x, 0)
        patches = self._patches(x.reshape(batch * count, *x.shape[2:]))
        found = self.encoder(self.stem(patches), self._places(), train=train, keys=part_keys(keys, count))
        groups = self._groups(found[:, 1:])
        pooled = self.neighbours(groups.reshape(-1, *groups.shape[2:])).reshape(batch * count, -1, found.shape[-1])
        found = jnp.concatenate([found[:, :1], pooled], axis=1)
        return found.reshape(batch, count * found.shape[1], -1), jnp.repeat(real, found.shape[1], axis=1)

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The mean of the real parts' CLS, float32, not normalised."""
        return mean(tokens[:, :: self.each], token_mask[:, :: self.each]).astype(jnp.float32)

    def _check(self, whole: int, by: int, what: str, fields: str) -> None:
        """Raises UserError where `by` doesn't divide the number of patches along an axis."""
        if by < 1 or whole < 1 or whole % by:
            raise UserError(f"{fields}: {whole} patches {what} aren't pooled by {by}: take a divisor of {whole}")
