"""The tower of regions that a detector found in a picture (LXMERT: Tan and Bansal 2019, arXiv:1908.07490; ViLBERT: Lu
et al. 2019, arXiv:1908.02265)."""

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.parameters import BERT_STD, HIDDEN, constrain, dense, layer_norm
from mmjax.models.layers.pooling import PoolingName
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import Tower, take_kept

BOX = 4  # numbers of a box: its left, upper, right and lower edge, as parts of the picture's width and height
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of the whole picture

SumName = Literal["mean", "sum"]
Rows = Float[Array, "b n f+4"]


class Regions(Tower, kw_only=True):
    """Regions float32 `[B, N, F + 4]`, each one's features and then its box (left, upper, right, lower edge, in
    [0, 1]), with a mask `[B, N]` of the real ones -> a token each, of what it is and where -> transformer.

    `mmjax.data.ReadRegions` and `mmjax.data.GridRegions` give such entries. With `blocks.depth=0` there is no
    transformer: the tokens are those that a fusion reads first (ViLBERT, whose fusion holds the blocks of this tower).

    Attributes:
        features: the number F of a region's features.
        joined: how features f and box b become a token: `mean`, (norm(W f) + norm(V b)) / 2 (LXMERT); or `sum`,
            norm(W f + V b) (ViLBERT).
        area: whether the box's area is a fifth number of it (ViLBERT).
        whole: whether a token of the whole picture comes first (ViLBERT): of the mean of its regions' features, as they
            are seen, and of the box (0, 0, 1, 1).
    """

    features: int
    joined: SumName = "mean"
    area: bool = False
    whole: bool = False
    pooling: PoolingName = "mean"

    @property
    def prefix(self) -> int:
        """The number of tokens before the regions: that of the whole picture, a trunk's CLS, or none."""
        return int(self.whole) if self.trunk is None else self.trunk.prefix

    def check_input(self, path: str, given: Incoming) -> None:
        wanted = self.features + BOX
        if len(given.shape) != 2 or given.dtype != "float32":
            raise UserError(
                f"{path} reads regions float32[N, {wanted}], and data.transforms gives {given}: end the chain in "
                "ReadRegions(...) or GridRegions(...), or take another tower"
            )
        if given.shape[1] != wanted:
            raise UserError(
                f"{path}.features={self.features} reads regions of {wanted} numbers, {BOX} of them a box, and "
                f"data.transforms gives {given}: set {path}.features={given.shape[1] - BOX}"
            )

    def setup(self) -> None:
        if self.joined not in get_args(SumName):
            raise UserError(not_among("joined", self.joined, get_args(SumName)))
        if self.trunk is not None and self.whole:
            raise UserError(
                "the trunk has a CLS: a tower with one has no token of the whole picture, so set whole=False"
            )
        if self.pooling == "cls" and not self.prefix:
            raise UserError("pooling='cls' needs whole=True: without it the first token is the first region")
        self._make_trunk()
        sizes = self.sizes
        init = nn.initializers.xavier_uniform()
        if sizes.inits == "bert":
            init = nn.initializers.truncated_normal(BERT_STD)
        axes = ("patch", "embed")
        self.stem = dense(sizes.width, axes, init, dtype=sizes.dtype)
        self.place = dense(sizes.width, (None, "embed"), init, dtype=sizes.dtype)
        self.norm_stem = layer_norm(eps=sizes.norm_eps, dtype=sizes.dtype)
        if self.joined == "mean":
            self.norm_place = layer_norm(eps=sizes.norm_eps, dtype=sizes.dtype)

    def grid(self, x: Rows) -> tuple[int, ...]:
        """The number of regions, `(N,)`."""
        return (x.shape[1],)

    def patches(
        self, x: Rows, mask: Bool[Array, "b n"] | None = None
    ) -> tuple[Float[Array, "b n f"], Bool[Array, "b n"]]:
        """The regions' features, and which regions are real. Raises UserError where they are of another size."""
        if x.shape[-1] != self.features + BOX:
            raise UserError(
                f"regions of {x.shape[-1]} numbers, and features={self.features} with a box of {BOX}: set features to "
                f"{x.shape[-1] - BOX}"
            )
        return x[..., : self.features], jnp.ones(x.shape[:2], bool) if mask is None else mask

    def with_patches(self, x: Rows, patches: Float[Array, "b n f"]) -> Rows:
        """The regions with other features, in the same boxes."""
        return jnp.concatenate([patches.astype(x.dtype), x[..., self.features :]], axis=-1)

    def front(
        self, x: Rows, mask: Bool[Array, "b n"] | None = None, keep: Int[Array, "b k"] | None = None
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        x, real = self._kept(x, mask, keep)
        tokens = self._joined(x)
        return tokens if self.trunk is None else self._for_trunk(tokens, real), real

    def tokens(
        self,
        x: Rows,
        mask: Bool[Array, "b n"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        if self.trunk is not None:
            return self.trunk(*self.front(x, mask, keep), train, keys)
        x, real = self._kept(x, mask, keep)
        if self.whole:
            x = jnp.concatenate([self._picture(x, real), x], axis=1)
            real = jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
        sizes = self.sizes
        keys = dropout_keys(self, sizes.dropout, train, keys, len(x))
        tokens = drop(constrain(self._joined(x), *HIDDEN), sizes.dropout, keys, BEFORE_BLOCKS)
        if not sizes.depth:
            return tokens, real
        all_real = mask is None and keep is None  # then attention needs no mask
        return self.transformer(tokens, None if all_real else real, train, keys), real

    def _kept(
        self, x: Rows, mask: Bool[Array, "b n"] | None, keep: Int[Array, "b k"] | None
    ) -> tuple[Rows, Bool[Array, "b n"]]:
        _, real = self.patches(x, mask)
        if keep is None:
            return x, real
        return take_kept(x, keep), (keep >= 0) & take_kept(real, keep)

    def _picture(self, x: Rows, real: Bool[Array, "b n"]) -> Float[Array, "b 1 f+4"]:
        """The whole picture as a region."""
        features = jnp.where(real[..., None], x[..., : self.features], 0).sum(axis=1)
        features = features / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
        box = jnp.broadcast_to(jnp.asarray(WHOLE, x.dtype), (len(x), BOX))
        return jnp.concatenate([features.astype(x.dtype), box], axis=-1)[:, None]

    def _joined(self, x: Rows) -> Float[Array, "b n d"]:
        """A token of each region."""
        dtype = jnp.dtype(self.sizes.dtype)
        features, box = x[..., : self.features], x[..., self.features :]
        if self.area:
            area = (box[..., 2:3] - box[..., 0:1]) * (box[..., 3:4] - box[..., 1:2])
            box = jnp.concatenate([box, area], axis=-1)
        what, where = self.stem(features.astype(dtype)), self.place(box.astype(dtype))
        if self.joined == "sum":
            return self.norm_stem(what + where)
        return (self.norm_stem(what) + self.norm_place(where)) / 2
