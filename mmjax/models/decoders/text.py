"""The text decoder: a transformer that predicts each next word from those before it and from what other towers saw.

It reads a whole text at once (`__call__`), or a text's beginning and then what comes next, with a memory (`prefill`,
`extend`): the same numbers.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.decoders.read_views import (
    NO_VIEWS,
    Views,
    check_read,
    joined_views,
    read_context,
    taken_tokens,
)
from mmjax.models.layers import rotary
from mmjax.models.layers.activations import ACTIVATIONS
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.layers.decoder_layer import CrossName, Sight
from mmjax.models.layers.decoder_layers import DecoderLayers, Memories
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import HIDDEN, constrain, dense, parameter
from mmjax.models.layers.positions import WAVELENGTH, PositionName, sincos


class Cache(NamedTuple):
    """The memory of a decoder while it writes: everything of the texts so far that what comes next can see."""

    memories: Memories
    real: Bool[Array, "b m"]
    """Which slots hold a token."""
    slot: Int[Array, " b"]
    """Each row's next slot."""
    place: Int[Array, " b"]
    """The next token's place in its row, by which it is told where it stands."""
    context_mask: Bool[Array, "b c"] | None
    """Which tokens of the context are there."""

    @property
    def slots(self) -> int:
        """The number of slots of a row."""
        return self.real.shape[1]

    def reordered(self, order: Int[Array, " b"]) -> "Cache":
        """The memory with other rows in the rows' places, each of a text with the same context."""
        memories = tuple(memory._replace(own=jax.tree.map(lambda x: x[order], memory.own)) for memory in self.memories)
        return self._replace(memories=memories)


class TextDecoder(nn.Module, kw_only=True):
    """Token ids int32 `[B, L]` -> states `[B, L, D]`, each of the words up to its own; `logits` of a state are those of
    the next word.

    Views' tokens stand before the text (`prefix`) or within it (`inserted`), or are read by the layers (`context`).
    Rows whose view isn't there are decoded as if the decoder had none: their words have the places that they had
    without.

    Attributes:
        vocab: number of token ids.
        length: the longest text, in tokens, with those of the prefix where they count as places.
        blocks: of its layers.
        positions: `learned`, `sincos`, `rotary` (queries and keys are turned), or `none`.
        wavelength: rotary only: of the slowest pair (10,000; larger for longer texts).
        cross, cross_from, cross_every: how and which layers read the context (`DecoderLayers`).
        context: the views that layers read, and of each the projector that brings it to one width, or None.
        prefix: the views whose tokens stand before the text, in this order, and of each its projector.
        inserted: the views whose tokens stand in the text where a call's `inserts` says so (LLaVA: Liu et al. 2023,
            arXiv:2304.08485), counted through in this order, and of each its projector, or None.
        prefix_together: whether the prefix's see each other, and not only those before them (PaliGemma, GIT).
        prefix_places: whether they have places of their own, before the text's (GIT's haven't).
        tied: whether the last matrix is the table of token vectors.
        head_bias: whether the logits have a bias.
        zero_head: whether an untied last matrix starts at zero (Cap: every word is as likely then).
        head_layer: whether a linear map, the blocks' activation and a norm stand before the last matrix (BERT's head).
        token_std, position_std: of the initial tables (the defaults are GPT-2's).
        scaled: whether token vectors, not those of views, are multiplied by the root of the width (Gemma).
        norm_embedded: whether a norm stands before the first layer (BERT's).
    """

    vocab: int
    length: int
    blocks: DecoderBlocks
    positions: PositionName = "learned"
    wavelength: float = WAVELENGTH
    cross: CrossName = "none"
    cross_from: int = 0
    cross_every: int = 1
    context: Mapping[str, Any] = field(default_factory=dict)
    prefix: Mapping[str, Any] = field(default_factory=dict)
    inserted: Mapping[str, Any] = field(default_factory=dict)
    prefix_together: bool = True
    prefix_places: bool = True
    tied: bool = True
    head_bias: bool = False
    zero_head: bool = False
    head_layer: bool = False
    token_std: float = 0.02
    position_std: float = 0.01
    scaled: bool = False
    norm_embedded: bool = False

    def setup(self) -> None:
        blocks, normal = self.blocks, nn.initializers.normal
        if self.tied and self.zero_head:
            raise UserError("zero_head=True is for a last matrix of its own, and tied=True shares the table's: set one")
        if (self.cross == "none") != (not self.context):
            raise UserError(
                f"cross={self.cross!r} with context={sorted(self.context)}: layers read a context where both are set"
            )
        read = {"context": self.context, "prefix": self.prefix, "inserted": self.inserted}
        for name in sorted({*self.context, *self.prefix, *self.inserted}):
            if len(ways := [way for way, views in read.items() if name in views]) > 1:
                raise UserError(f"{name!r} is in {' and in '.join(ways)}: a view is read in one way")
        init = nn.with_logical_partitioning(normal(self.token_std), ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, blocks.width, dtype=jnp.dtype(blocks.dtype), embedding_init=init)
        if self.positions == "learned":
            init = normal(self.position_std)
            self.position = parameter(self, "position", init, ("position", "embed"), (self.length, blocks.width))
        if self.norm_embedded:
            self.norm_first = blocks.norm_layer()
        self.layers = DecoderLayers(blocks, self.cross, self.cross_from, self.cross_every)
        if not self.tied:
            init = nn.initializers.zeros if self.zero_head else normal(self.token_std)
            self.head = parameter(self, "head", init, ("vocab", "embed"), (self.vocab, blocks.width))
        if self.head_layer:
            self.head_dense = dense(blocks.width, ("embed", None), normal(self.token_std), dtype=blocks.dtype)
            self.head_norm = blocks.norm_layer()
        if self.head_bias:
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
        inserts: Int[Array, "b l"] | None = None,
    ) -> Float[Array, "b l d"]:
        """The state of each word.

        Args:
            ids, mask: the words, and which of them are real: the first ones of each row.
            views: by name, the tokens of those that `context`, `prefix` and, with `inserts`, `inserted` name, and which
                are real.
            together: how many of each row's first words see each other, and the prefix sees (PaliGemma's prompt); None:
                none, each word sees those before it.
            segments: which of several packed texts each word is of, -1 of none: words see their own text alone.
            places: of each word in its text; with `segments`, and only there.
            train: whether dropout acts.
            keys: each example's key for it.
            inserts: which token of the `inserted` views, counted through, stands in each word's place, -1: the word.
                Nothing sees a place whose token isn't real, or isn't there, and the words behind it move up.

        Raises:
            UserError: views that are missing or that nothing reads; texts longer than `length`; packed texts beside a
                prefix; `inserts` of a decoder that has no such views.
        """
        self.check_views(views, inserts)
        if segments is not None and (views or together is not None or places is None):
            raise UserError(
                "packed texts (segments) need the places of their words, and have no views and no words together"
            )
        keys = dropout_keys(self, self.blocks.dropout, train, keys, len(ids))
        before, there = self._prefix(views, len(ids))
        start = there.sum(axis=1) if self.prefix_places else jnp.zeros(len(ids), jnp.int32)
        self._check_length(ids.shape[1] + (before.shape[1] if self.prefix_places else 0))
        whole, mask = mask is None and inserts is None, jnp.ones(ids.shape, bool) if mask is None else mask
        own, mask, places = self._embedded(ids, mask, start, views, inserts, places)
        x, real = jnp.concatenate([before, own], axis=1), jnp.concatenate([there, mask], axis=1)
        sight = self._sight(real, before.shape[1], whole, together, segments, places, views)
        x = drop(constrain(x, *HIDDEN), self.blocks.dropout, keys, BEFORE_BLOCKS)
        return self.layers(x, sight, train, keys)[:, before.shape[1] :]

    def logits(self, states: Float[Array, "b *l d"]) -> Float[Array, "b *l v"]:
        """The logits of the next word, float32 at least."""
        if self.head_layer:
            states = self.head_norm(ACTIVATIONS[self.blocks.activation](self.head_dense(states)))
        logits = logits_by(self.token.embedding if self.tied else self.head, states)
        return logits + self.bias if self.head_bias else logits

    def prefill(
        self,
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        views: Views = NO_VIEWS,
        together: Int[Array, " b"] | None = None,
        inserts: Int[Array, "b l"] | None = None,
        *,
        slots: int,
    ) -> tuple[Float[Array, "b l d"], Cache]:
        """The states of texts' first words, and the memory in which `slots` tokens of each row have room, with those of
        the prefix and those within the text. Rows may differ in their number of words: those that `mask` has are the
        first.

        Raises:
            UserError: as a call does; more words than slots, or more slots than the positions that there are.
        """
        self.check_views(views, inserts)
        before, there = self._prefix(views, len(ids))
        ahead = before.shape[1]
        self._check_length(slots - (0 if self.prefix_places else ahead))
        if slots < ahead + ids.shape[1]:
            raise UserError(f"slots={slots} have no room for {ids.shape[1]} words behind {ahead} tokens of the prefix")
        start = there.sum(axis=1) if self.prefix_places else jnp.zeros(len(ids), jnp.int32)
        own, seen, places = self._embedded(ids, mask, start, views, inserts)
        x, real = jnp.concatenate([before, own], axis=1), jnp.concatenate([there, seen], axis=1)
        sight = self._sight(real, ahead, False, together, None, places, views, seen_by_all=True)
        extra = ((0, 0), (0, 0), (0, slots - x.shape[1]))
        sight = sight._replace(
            mask=None,
            allowed=jnp.pad(jnp.asarray(sight.allowed) & real[:, None], extra),
            apart=None if sight.apart is None else jnp.pad(sight.apart, extra),
            slots=jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2]),
        )
        states, memories = self.layers.extend(x, sight, self.layers.memories(len(ids), slots))
        after = ahead + mask.sum(axis=1), start + seen.sum(axis=1)
        cache = Cache(memories, jnp.pad(real, extra[1:]), *after, read_context(self, views)[1])
        return states[:, ahead:], cache

    def extend(
        self,
        ids: Int[Array, "b n"],
        cache: Cache,
        mask: Bool[Array, "b n"] | None = None,
        views: Views = NO_VIEWS,
        inserts: Int[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Cache]:
        """The states of the words that come next, and the memory with them. mask: which are there, the first of each
        row; a row without one stays as it was. What goes beyond the slots is lost: the caller counts.

        views, inserts: of the `inserted` views, tokens that stand among these words, counted through from 0 again.

        Raises:
            UserError: another view, for what is read beside or before a text stays as it was; `inserts` without views.
        """
        check_read(self, views, inserts, later=True)
        mask = jnp.ones(ids.shape, bool) if mask is None else mask
        slots = cache.slot[:, None] + jnp.arange(ids.shape[1])
        x, seen, places = self._embedded(ids, mask, cache.place, views, inserts)
        real = cache.real.at[jnp.arange(len(ids))[:, None], slots].set(seen, mode="drop")
        allowed = real[:, None] & (jnp.arange(cache.slots) <= slots[..., None])
        apart = None
        if any(self.blocks.windows()):
            apart = places[..., None] - (jnp.cumsum(real, axis=1) - 1)[:, None]
        sight = Sight(None, allowed, apart, self._angles(places), slots, None, cache.context_mask)
        states, memories = self.layers.extend(x, sight, cache.memories)
        after = cache.slot + mask.sum(axis=1), cache.place + seen.sum(axis=1)
        return states, Cache(memories, real, *after, cache.context_mask)

    def before(self, views: Views) -> Float[Array, "b p d"]:
        """The tokens that stand before a text; of no row where there are no views."""
        batch = len(next(iter(views.values()))[1]) if views else 0
        return self._prefix(views, batch)[0]

    def within(self, views: Views) -> TokensAndMask:
        """The tokens of the `inserted` views as they stand within a text, one view's behind the other's; and which are
        real."""
        width, dtype = self.blocks.width, jnp.dtype(self.blocks.dtype)
        return joined_views(self.inserted, views, width, dtype)

    def room(self, ahead: int) -> int | None:
        """The number of words for which there are positions behind `ahead` tokens of the prefix; None: no end."""
        if self.positions not in ("learned", "sincos"):
            return None
        return self.length - (ahead if self.prefix_places else 0)

    def check_views(self, views: Views, inserts: Any = None) -> None:
        """Raises UserError where a view is missing, or nothing reads it."""
        check_read(self, views, inserts)

    def _check_length(self, places: int) -> None:
        if self.positions in ("learned", "sincos") and places > self.length:
            raise UserError(
                f"{places} tokens are {places - self.length} more than the {self.length} places of length={self.length}"
            )

    def _embedded(
        self,
        ids: Int[Array, "b n"],
        mask: Bool[Array, "b n"],
        start: Int[Array, " b"],
        views: Views,
        inserts: Int[Array, "b n"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"], Int[Array, "b n"]]:
        """The vectors of words, and of the views' tokens among them; which are real; and the places of all, from
        `start`, which those have that aren't real too."""
        x = self.token(ids)
        x = x * jnp.asarray(self.blocks.width**0.5, x.dtype) if self.scaled else x
        if inserts is not None:
            tokens, real = self.within(views)
            tokens, there = taken_tokens(tokens, real, inserts)
            x, mask = jnp.where((inserts >= 0)[..., None], tokens, x), mask & ((inserts < 0) | there)
            places = start[:, None] + jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        if places is None:
            places = start[:, None] + jnp.arange(ids.shape[1])
        return self._first(self._placed(x, places)), mask, places

    def _placed(self, x: Float[Array, "b n d"], places: Int[Array, "b n"]) -> Float[Array, "b n d"]:
        """With the vectors of their places."""
        if self.positions == "learned":
            return x + self.position[places].astype(x.dtype)
        if self.positions == "sincos":
            return x + jnp.asarray(sincos((self.length,), x.shape[-1]), x.dtype)[places]
        return x

    def _first(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return self.norm_first(x) if self.norm_embedded else x

    def _prefix(self, views: Views, batch: int) -> tuple[Float[Array, "b p d"], Bool[Array, "b p"]]:
        """The tokens that stand before the text, those of the first rows' real ones first."""
        width, dtype = self.blocks.width, jnp.dtype(self.blocks.dtype)
        tokens, real = joined_views(self.prefix, views, width, dtype, batch)
        if self.prefix_places and tokens.shape[1]:
            tokens = self._placed(tokens, jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0))
        return tokens, real

    def _angles(self, places: Int[Array, "b n"]) -> Float[Array, "b n p"] | None:
        if self.positions != "rotary":
            return None
        return rotary.angles(places[..., None], self.blocks.head_size, self.wavelength)

    def _sight(
        self,
        real: Bool[Array, "b n"],
        ahead: int,
        whole: bool,
        together: Int[Array, " b"] | None,
        segments: Int[Array, "b l"] | None,
        places: Int[Array, "b l"],
        views: Views,
        seen_by_all: bool = False,
    ) -> Sight:
        """What each token of prefix and text sees.

        ahead: number of tokens of the prefix. whole: whether all words are real. seen_by_all: whether `allowed` is to
        be there in any case.
        """
        context, context_mask = read_context(self, views)
        before = jnp.maximum(jnp.cumsum(real[:, :ahead], axis=1) - 1, 0)
        placed = jnp.concatenate([before, places], axis=1)
        angles = self._angles(placed)
        apart = placed[:, :, None] - placed[:, None] if any(self.blocks.windows()) else None
        more = {"apart": apart, "angles": angles, "context": context, "context_mask": context_mask}
        plain = together is None and segments is None and not (ahead and self.prefix_together)
        if plain and not seen_by_all:
            return Sight(None if whole and not ahead else real, **more)
        length = real.shape[1] - ahead
        words = jnp.arange(length) >= (0 if together is None else together[:, None])
        if not self.prefix_together:
            words |= jnp.arange(length) == 0
        first = jnp.full((len(real), ahead), not self.prefix_together)
        # A token begins a new step, or shares that of the token before it; it sees its own step and those before.
        step = jnp.cumsum(jnp.concatenate([first, jnp.broadcast_to(words, (len(real), length))], axis=1), axis=1)
        allowed = step[:, None] <= step[:, :, None]
        if segments is not None:
            allowed &= segments[:, None] == segments[:, :, None]
        return Sight(None if whole and not ahead else real, allowed=allowed, **more)


def last_word(states: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The state of each row's last real word."""
    place = jnp.maximum(mask.sum(axis=1) - 1, 0)
    return jax.vmap(lambda row, at: row[at])(states, place)


def logits_by(table: Float[Array, "v d"], states: Float[Array, "b *l d"]) -> Float[Array, "b *l v"]:
    """The products of states with each row of a table, float32 at least."""
    table = table.astype(states.dtype)
    if states.ndim > 2:
        return jnp.einsum("...d,vd->...v", states, table, preferred_element_type=jnp.float32)
    # The table stands first for a word of each row: XLA reads it where it lies, and would pack it all for the other
    # order, into which it would turn this one but for the barrier (1.2 times a step, on a CPU).
    logits = jnp.einsum("vd,bd->vb", table, states, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(logits).T
