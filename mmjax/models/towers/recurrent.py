"""Recurrent towers: an LSTM (Hochreiter & Schmidhuber 1997) or a GRU (Cho et al. 2014, arXiv:1406.1078), over words."""

from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers import pooling as poolings
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.parameters import HIDDEN, DtypeName, constrain, dense
from mmjax.models.towers.bare import BareTower, Incoming
from mmjax.models.towers.contract import take_kept
from mmjax.models.towers.text import TextTransformer

CellName = Literal["lstm", "gru"]
StatePoolingName = Literal["last", "mean", "max"]

# PyTorch has a bias of the input and one of the state, also where they are only added; here these are one.
CELLS: dict[str, Any] = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


def _states(cell: Any, x: Float[Array, "b n i"], real: Bool[Array, "b n"], reverse: bool) -> Float[Array, "b n h"]:
    """The state after each position, float32. Positions that aren't real leave the state as it is, wherever they stand,
    so that backwards too it is the initial one until the last real position.
    """

    def step(cell: Any, state: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
        x, real = inputs
        after, _ = cell(state, x)
        after = jax.tree.map(lambda new, old: jnp.where(real[:, None], new, old), after, state)
        return after, after[1] if isinstance(after, tuple) else after  # an LSTM's state is its memory and its output

    scan = nn.scan(
        step,
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=cast(Any, 1),
        out_axes=1,
        reverse=reverse,
    )
    start = cell.initialize_carry(jax.random.key(0), (len(x), x.shape[-1]))  # zeros, whatever the key
    return scan(cell, start, (x, real))[1]


class _Layer(nn.Module):
    """One layer, `[b n i]` -> `[b n width]` in `dtype`; of two directions the forward one has the first half."""

    cell: CellName
    width: int
    bidirectional: bool
    dtype: DtypeName

    @nn.compact
    def __call__(self, x: Float[Array, "b n i"], real: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
        # No axis is cut over `tensor`: each step would wait for the others' part of the state.
        axes, found = ("embed", None), []
        for name in ("forward", "backward") if self.bidirectional else ("forward",):
            cell = CELLS[self.cell](
                self.width // (2 if self.bidirectional else 1),
                kernel_init=nn.with_logical_partitioning(nn.initializers.lecun_normal(), axes),
                recurrent_kernel_init=nn.with_logical_partitioning(nn.initializers.orthogonal(), axes),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (None,)),
                dtype=jnp.dtype(self.dtype),
                name=name,
            )
            found.append(_states(cell, x, real, reverse=name == "backward"))
        return jnp.concatenate(found, axis=-1).astype(self.dtype)


class RecurrentTower(BareTower, kw_only=True):
    """The layers and the pooling of a recurrent tower. A subclass gives `states` the vectors of its words or frames.

    Padding changes nothing, for the state passes over what isn't real. Of an example in which nothing is, all states
    are zero.

    Attributes:
        cell: `lstm` or `gru`.
        width: size of a token: of the state of the last layer, or of both directions' states together.
        depth: number of layers.
        bidirectional: whether half of the width is the state of a second network, which reads from the end.
        pooling: `last` (the state after the last real word, and of the backward direction that after the first),
            `mean`, or `max`.
        embed_dim: size E of the embedding; None leaves the pooled token as it is (E = width).
        dropout: rate at which values are dropped between layers, by each example's own key.
        dtype: of the computation, but for the states, which add up in float32 as parameters are stored.
    """

    cell: CellName = "lstm"
    width: int
    depth: int = 1
    bidirectional: bool = False
    pooling: StatePoolingName = "last"
    embed_dim: int | None = None
    dropout: float = 0.0
    dtype: DtypeName = "float32"

    @property
    def embedding_size(self) -> int:
        """The size of the projection, or the width where there is none."""
        return self.width if self.embed_dim is None else self.embed_dim

    def setup(self) -> None:
        for name, allowed in {"cell": CellName, "pooling": StatePoolingName}.items():
            if getattr(self, name) not in get_args(allowed):
                raise UserError(not_among(name, getattr(self, name), get_args(allowed)))
        if self.width < 1 or self.depth < 1:
            raise UserError(f"width={self.width} and depth={self.depth} must both be at least 1")
        if self.bidirectional and self.width % 2:
            raise UserError(
                f"width={self.width} is odd, and with bidirectional=True each direction has half of it: take "
                f"{self.width + 1}"
            )
        if self.dropout and self.depth == 1:
            raise UserError(
                f"dropout={self.dropout} acts between layers, and depth=1 is a single one: set dropout=0, or a depth "
                "of 2 or more"
            )
        self.layers = [_Layer(self.cell, self.width, self.bidirectional, self.dtype) for _ in range(self.depth)]
        if self.embed_dim is not None:
            init = nn.initializers.normal(self.width**-0.5)
            self.projection = dense(self.embed_dim, ("embed", "joint"), init, dtype=self.dtype, bias=False)

    def states(
        self, x: Float[Array, "b n i"], real: Bool[Array, "b n"], train: bool, keys: Key[Array, " b"] | None
    ) -> Float[Array, "b n d"]:
        """The last layer's state after each position, `[B, N, width]` in `dtype`."""
        keys = dropout_keys(self, self.dropout, train, keys, len(x))
        for place, layer in enumerate(self.layers):
            x = layer(drop(x, self.dropout, keys, place) if place else x, real)
        return constrain(x, *HIDDEN)

    def pool(self, tokens: Float[Array, "b n d"], token_mask: Bool[Array, "b n"]) -> Float[Array, "b e"]:
        """The embedding of each example, float32, not normalised."""
        if self.pooling != "last":
            pooled = poolings.POOLINGS[self.pooling](tokens, token_mask)
        elif self.bidirectional:  # each direction has read everything at its own end
            forward, backward = jnp.split(tokens, 2, axis=-1)
            first = poolings.last(backward[:, ::-1], token_mask[:, ::-1])
            pooled = jnp.concatenate([poolings.last(forward, token_mask), first], axis=-1)
        else:
            pooled = poolings.last(tokens, token_mask)
        if self.embed_dim is not None:
            pooled = self.projection(pooled)
        return pooled.astype(jnp.float32)


class Recurrent(RecurrentTower, kw_only=True):
    """Token ids int32 `[B, L]` -> their vectors -> LSTM or GRU. A tower, see `BareTower`; its fields beside those of
    `RecurrentTower` are these.

    With `keep` it reads the kept words alone, in the order in which they are given.

    Attributes:
        vocab: number of token ids.
        length: the longest text, in tokens.
        token_std: deviation of the initial vectors, of `width` numbers each; with the default the first layer's sums
            have a deviation of 1 too.
    """

    vocab: int
    length: int
    token_std: float = 1.0

    @property
    def vocabulary(self) -> int:
        """`vocab`."""
        return self.vocab

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts the token ids that a `TextTransformer` of this `vocab` and `length` would."""
        TextTransformer.check_input(cast(Any, self), path, given)

    def setup(self) -> None:
        super().setup()
        init = nn.with_logical_partitioning(nn.initializers.normal(self.token_std), ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, self.width, dtype=jnp.dtype(self.dtype), embedding_init=init)

    def table(self) -> Float[Array, "v d"]:
        """The vector of each token id, float32: what a masked-language head may be tied to."""
        return self.token.embedding

    def grid(self, x: Int[Array, "b l"]) -> tuple[int, ...]:
        """The number of positions, `(L,)`."""
        return (x.shape[1],)

    def patches(
        self, x: Int[Array, "b l"], mask: Bool[Array, "b l"] | None = None
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The ids, and which of them are text rather than padding."""
        return x, jnp.ones(x.shape, bool) if mask is None else mask

    def tokens(
        self,
        x: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The state after each word, and which words are real.

        Raises:
            UserError: a text is longer than `length`.
        """
        if x.shape[1] > self.length:
            raise UserError(f"texts of {x.shape[1]} tokens are longer than length={self.length}: set it to theirs")
        ids, real = self.patches(x, mask)
        if keep is not None:
            ids, real = take_kept(ids, keep), (keep >= 0) & take_kept(real, keep)
        return self.states(self.token(ids), real, train, keys), real
