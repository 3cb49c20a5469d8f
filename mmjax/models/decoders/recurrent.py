"""The recurrent decoder: an LSTM that writes a text, of what it saw once before it (Show and Tell) or sees at each word
(Show, Attend and Tell).
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.decoders.read_views import NO_VIEWS, Views, check_read
from mmjax.models.layers import pooling as poolings
from mmjax.models.layers.additive_attention import AdditiveAttention, Annotations
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.lstm import LstmLayer, LstmState
from mmjax.models.layers.parameters import HIDDEN, DtypeName, constrain, dense, parameter, uniform_init


class RecurrentCache(NamedTuple):
    """The memory of a recurrent decoder while it writes. All that it holds has the batch as its first axis."""

    states: tuple[LstmState, ...]
    """Of each layer."""
    seen: Annotations | None
    """The context."""
    room: Float[Array, "b m 0"]
    """An array without an entry: its length is the number of words for which the caller keeps room."""

    @property
    def slots(self) -> int:
        """The number of words of a row for which there is room."""
        return self.room.shape[1]

    def reordered(self, order: Int[Array, " b"]) -> "RecurrentCache":
        """The memory with other rows in the rows' places, each of a text with the same context."""
        return self._replace(states=jax.tree.map(lambda x: x[order], self.states))


class Attended(NamedTuple):
    """The states of words, and where the decoder looked for each."""

    states: Float[Array, "b l d"]
    weights: Float[Array, "b l c"]
    """Of each token of the context, float32: 1 together, or 0 where none is real. Also of words that aren't real."""
    real: Bool[Array, "b c"]
    """Which tokens of the context are there."""


class RecurrentDecoder(nn.Module, kw_only=True):
    """Token ids int32 `[B, L]` -> states `[B, L, D]`, each of the words up to its own; `logits` of a state are those of
    the next word. It takes the place of a `TextDecoder`.

    `prefix` is Show and Tell's (Vinyals et al. 2014, arXiv:1411.4555): the mean of a view's tokens, through its
    projector, is read once as if it were the word before the first; the state starts at zero. `context` is Show, Attend
    and Tell's (Xu et al. 2015, arXiv:1502.03044), with soft attention: the first layer attends to the tokens at each
    word, by its output before; memory and output of each layer start from the tokens' mean by an MLP, and the state is
    `tanh(L_h h + E y + L_z z)` of the last layer's output h, the word's vector `E y` and what was attended to, z.

    An example without a view has the zero vector for its mean, and attends to nothing (z is zero).

    Attributes:
        vocab: number of token ids.
        length: the longest text, in tokens.
        width: of the LSTM's memory and output; the width D of a state without a context.
        embed_width: of the words' vectors; the width D of a state with a context.
        layers: their number.
        prefix: the views that are read before the text, in this order, and of each its projector.
        context: the views that are attended to, and of each the projector to `embed_width`, or None: tokens as they
            are, all of one width.
        attention_width: of the attention's hidden layer.
        gate: whether z is multiplied by a scalar gate of the output before (beta of Show, Attend and Tell, 4.2.1).
        start_layers: layers of the MLPs that the state starts from: the last is tanh and each one's own; those before,
            `embed_width` wide, are ReLU and shared (the released code has 2 layers for COCO).
        input_dropout: rate at which the values of words' vectors and of the prefix are dropped as the first layer reads
            them, by each example's own key.
        dropout: the same for each layer's output, as what follows reads it; and with a context for the states, and the
            hidden layers of the start.
        forget_bias: added to the forget gates (1 in the released code of Show and Tell, 0 in the other's).
        initial_range: matrices and vectors of words start uniform between its negative and it (Show and Tell's 0.08).
        dtype: of the computation, but for memory and output, which add up in float32 as parameters are stored.
    """

    vocab: int
    length: int
    width: int
    embed_width: int
    layers: int = 1
    prefix: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    attention_width: int = 512
    gate: bool = True
    start_layers: int = 1
    input_dropout: float = 0.0
    dropout: float = 0.0
    forget_bias: float = 0.0
    initial_range: float = 0.08
    dtype: DtypeName = "float32"

    def setup(self) -> None:
        for name in ("vocab", "length", "width", "embed_width", "layers", "attention_width", "start_layers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} of a RecurrentDecoder must be at least 1")
        if both := sorted({*self.context} & {*self.prefix}):
            raise UserError(f"{both[0]!r} is in context and in prefix: a view is read in one way")
        init = uniform_init(self.initial_range)
        own: dict[str, Any] = {"initial": init, "dtype": self.dtype}
        into: dict[str, Any] = {"axes": ("embed", None), "init": init, "dtype": self.dtype}
        table = nn.with_logical_partitioning(init, ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, self.embed_width, dtype=jnp.dtype(self.dtype), embedding_init=table)
        attention = None
        if self.context:
            self.attention = attention = AdditiveAttention(self.attention_width, self.gate, **own)
            self.start_hidden = [dense(self.embed_width, **into) for _ in range(self.start_layers - 1)]
            self.start_memory = [dense(self.width, **into) for _ in range(self.layers)]
            self.start_output = [dense(self.width, **into) for _ in range(self.layers)]
            self.of_output = dense(self.embed_width, **into)
            self.of_attended = dense(self.embed_width, **into, bias=False)
        self.stack = [
            LstmLayer(self.width, self.forget_bias, **own, attention=None if place else attention)
            for place in range(self.layers)
        ]
        size = self.embed_width if self.context else self.width
        self.head = parameter(self, "head", init, ("vocab", "embed"), (self.vocab, size))
        self.bias = parameter(self, "bias", nn.initializers.zeros, ("vocab",), (self.vocab,))

    def __call__(
        self,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        views: Views = NO_VIEWS,
        together: Int[Array, " b"] | None = None,
        segments: Int[Array, "b l"] | None = None,
        places: Int[Array, "b l"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        inserts: Any = None,
    ) -> Float[Array, "b l d"]:
        """The state of each word.

        Args:
            ids, mask: the words, and which of them are real. The others leave the memory as it is.
            views: by name, the tokens of those that `context` and `prefix` name, and which are real.
            together, segments, places, inserts: a `TextDecoder`'s; here None.
            train: whether dropout acts.
            keys: each example's key for it.

        Raises:
            UserError: views that are missing or that nothing reads; texts longer than `length`; words that see each
                other, packed texts, or views' tokens within a text.
        """
        return self.attending(ids, mask, views, together, segments, places, train, keys, inserts).states

    def attending(
        self,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        views: Views = NO_VIEWS,
        together: Int[Array, " b"] | None = None,
        segments: Int[Array, "b l"] | None = None,
        places: Int[Array, "b l"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        inserts: Any = None,
    ) -> Attended:
        """The states that a call gives, and the weights with which it looked at the context for each, to find the next
        word; of no token without a context. Raises as a call does."""
        if together is not None or segments is not None or places is not None:
            raise UserError(
                "a RecurrentDecoder reads one text a row, word by word: words together, segments and places are a "
                "TextDecoder's"
            )
        self.check_views(views, inserts)
        self._check_length(ids)
        mask = jnp.ones(ids.shape, bool) if mask is None else mask
        inputs = dropout_keys(self, self.input_dropout, train, keys, len(ids))
        outputs = dropout_keys(self, self.dropout, train, keys, len(ids))
        return self._read(ids, mask, *self._start(views, len(ids), outputs), views, inputs, outputs)[0]

    def logits(self, states: Float[Array, "b *l d"]) -> Float[Array, "b *l v"]:
        """The logits of the next word, float32 at least."""
        head = self.head.astype(states.dtype)
        return jnp.einsum("...d,vd->...v", states, head, preferred_element_type=jnp.float32) + self.bias

    def prefill(
        self,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        views: Views = NO_VIEWS,
        together: Int[Array, " b"] | None = None,
        inserts: Any = None,
        *,
        slots: int,
    ) -> tuple[Float[Array, "b l d"], RecurrentCache]:
        """The states of texts' first words, and the memory of them. It doesn't grow: `slots` is only told by it.

        Raises:
            UserError: as a call does.
        """
        if together is not None:
            raise UserError("a RecurrentDecoder reads word by word: words together are a TextDecoder's")
        self.check_views(views, inserts)
        self._check_length(ids)
        room = jnp.zeros((len(ids), slots, 0))
        found, states, seen = self._read(ids, mask, *self._start(views, len(ids), None), views)
        return found.states, RecurrentCache(states, seen, room)

    def extend(
        self,
        ids: Int[Array, "b n"],
        cache: RecurrentCache,
        mask: Bool[Array, "b n"] | None = None,
        views: Views = NO_VIEWS,
        inserts: Any = None,
    ) -> tuple[Float[Array, "b n d"], RecurrentCache]:
        """The states of the words that come next, and the memory with them. mask: which are real; a row without a real
        one stays as it was. views, inserts: a `TextDecoder`'s.

        Raises:
            UserError: there are such views.
        """
        if views or inserts is not None:
            raise UserError("a RecurrentDecoder reads its views before a text: none comes with later words")
        mask = jnp.ones(ids.shape, bool) if mask is None else mask
        found, states, _ = self._read(ids, mask, cache.states, cache.seen)
        return found.states, cache._replace(states=states)

    def before(self, views: Views) -> Float[Array, "b 0 d"]:
        """The tokens that take a word's room before a text: none, for the prefix is in the memory."""
        return jnp.zeros((len(next(iter(views.values()))[1]) if views else 0, 0, self.embed_width))

    def room(self, ahead: int) -> int:
        """The number of words that are read: `length`."""
        del ahead
        return self.length

    @property
    def inserted(self) -> Views:
        """The views whose tokens stand within a text: none."""
        return NO_VIEWS

    def check_views(self, views: Views, inserts: Any = None) -> None:
        """Raises UserError where a view is missing, or nothing reads it."""
        check_read(self, views, inserts)

    def _check_length(self, ids: Int[Array, "b l"]) -> None:
        if ids.shape[1] > self.length:
            raise UserError(f"texts of {ids.shape[1]} tokens are longer than length={self.length}: set it to theirs")

    def _start(
        self, views: Views, batch: int, keys: Key[Array, " b"] | None
    ) -> tuple[tuple[LstmState, ...], Annotations | None]:
        """The state of each layer before anything is read, and the context."""
        self.check_views(views)
        if not self.context:
            zeros = jnp.zeros((batch, self.width), jnp.float32)
            return (LstmState(zeros, zeros),) * self.layers, None
        found = []
        for name, projector in self.context.items():
            tokens, real = views[name]
            view = jnp.where(real[..., None], tokens, 0), real
            found.append(view if projector is None else projector(*view, self.embed_width))
        if len(widths := {tokens.shape[-1] for tokens, _ in found}) > 1:
            raise UserError(f"a context of {sorted(self.context)} is {sorted(widths)} wide: give each a projector")
        tokens, real = (jnp.concatenate(each, axis=1) for each in zip(*found, strict=True))
        x = poolings.mean(tokens, real)
        for place, hidden in enumerate(self.start_hidden):
            x = drop(nn.relu(hidden(x)), self.dropout, keys, self.layers + 2 + place)
        states = tuple(
            LstmState(*(jnp.tanh(start(x)).astype(jnp.float32) for start in starts))
            for starts in zip(self.start_memory, self.start_output, strict=True)
        )
        return states, self.attention.annotated(tokens, real)

    def _read(
        self,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        states: tuple[LstmState, ...],
        seen: Annotations | None,
        views: Views = NO_VIEWS,
        inputs: Key[Array, " b"] | None = None,
        outputs: Key[Array, " b"] | None = None,
    ) -> tuple[Attended, tuple[LstmState, ...], Annotations | None]:
        """Reads words, after the prefix where there are views; with keys for the dropout of inputs and of outputs."""
        words = self.token(ids)
        read, real = [], []
        for name, projector in self.prefix.items() if views else ():
            token = poolings.mean(*views[name])[:, None]
            x, there = projector(token, jnp.ones(token.shape[:2], bool), self.embed_width)
            read, real = [*read, x.astype(words.dtype)], [*real, there]
        x = constrain(jnp.concatenate([*read, words], axis=1), *HIDDEN)
        real = jnp.concatenate([*real, mask], axis=1)
        x = drop(x, self.input_dropout, inputs, 0)
        ahead, last, attended, weights = x.shape[1] - ids.shape[1], [], None, None
        for place, layer in enumerate(self.stack):
            found, after = layer(x, real, states[place], seen if place == 0 else None)
            if place == 0:
                attended, weights = found.attended, found.weights
            x = drop(constrain(found.states.astype(words.dtype), *HIDDEN), self.dropout, outputs, 1 + place)
            last.append(after)
        x = x[:, ahead:]
        if seen is None or attended is None or weights is None:
            nothing = jnp.zeros((len(ids), 0))
            return Attended(x, jnp.zeros((*ids.shape, 0)), nothing > 0), tuple(last), None
        x = jnp.tanh(self.of_output(x) + words + self.of_attended(attended[:, ahead:]))
        x = drop(x, self.dropout, outputs, self.layers + 1)
        return Attended(x, weights[:, ahead:], seen.real), tuple(last), seen
