"""The objective of MERLOT Reserve: masked words and sounds of a video are found among all those of the batch."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, unknown
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import part_keys
from mmjax.models.layers.parameters import dense, parameter, reserve_init
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.reserve.encoder import ReserveEncoder
from mmjax.objectives.contract import Context, View, valid
from mmjax.objectives.contrastive.objective import at_most
from mmjax.objectives.reserve.compared import ComparedVectors, chosen_spans, compared_vectors, contrasted, drawn_scores
from mmjax.objectives.reserve.sequences import EncodedParts, JointRows, encoded_parts, joint_rows, sees
from mmjax.objectives.reserve.streams import (
    MATCHING,
    TO_SOUND,
    TO_TEXT,
    SpanRows,
    StreamRows,
    found_at,
    joined_spans,
    spans_of_web_text,
    spans_of_words,
    stream_of_web_text,
    stream_of_words,
)

FRAMES, SOUNDS, SPANS = LOSSES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")  # in the order of their scales
WEB = "web_text"
SPAN_PLACES = 16.0  # the places of a span's tokens are shares of so many
LARGE = 768  # the table of wider models starts as Glorot's
TOKEN_STD = 0.02
DRAWS, OF_SPANS, OF_ROWS = range(3)  # folded into an example's key


class ReserveOutputs(NamedTuple):
    """All that the losses read of each example: the compared vectors by loss, and a score for each span, where only
    some spans are compared.
    """

    vectors: dict[str, ComparedVectors]
    scores: Float[Array, "b s"] | None


class Reserve(nn.Module):
    """Finds the words and the sounds that were removed from a window of a video, and each frame by what is said and
    heard there (MERLOT Reserve: Zellers et al. 2022, arXiv:2201.02639).

    A joint transformer reads streams of tokens, which `mmjax.data.ReserveStreams` makes of a window's words: words with
    frames (`text2audio`), sounds with frames (`audio2text`), and words or sounds without frames (`matching`); and a
    text of the web (`mmjax.data.MaskSpans`). Frames and clips of sound come from towers that give of each a vector and
    tokens (`mmjax.models.ReserveVision`, `ReserveAudio`), spans of text from a small transformer here. The loss is the
    sum of three symmetric InfoNCE over the global batch: `imgs_to_audio`, states of `matching` with frames;
    `text_to_audio`, states of `text2audio` with sounds, of which those that weren't removed are candidates too; and
    `stuff_to_span`, states of all masks with spans. What an example lacks is left out of its sequences and the losses.

    Metrics of each of them, besides the loss: `loss/<loss>`, `accuracy/<loss>` (as `Contrastive`'s) and
    `logit_scale/<loss>`.

    Attributes:
        blocks: of the joint transformer; pre-LN. Those of spans are the same but for their depth.
        span_depth: the number of those.
        vocab: the number of token ids, the special ones among them.
        special: the number of ids before the tokenizer's (`ReserveIds.shift`).
        grid: rows and columns of a frame's tokens.
        streams: of words, that are read. Without `text2audio` or a sound there is no `text_to_audio`, without
            `matching` no `imgs_to_audio`.
        video, words: the batch's entries of frames, and of the streams of words.
        audio: that of clips of sound; None: there is none.
        web_text: that of texts of the web; None: there is none.
        chosen: the number of spans that are compared, for each example of the global batch.
        favour: how many times as often a span of a video is chosen as one of the web.
        scale_max: the scales of the logits are clipped here. They start at e.
        scaled: whether rotary positions scale channels and don't turn them, as the released code did.
    """

    blocks: Blocks
    span_depth: int = 4
    vocab: int = 32_768
    special: int = 10
    grid: tuple[int, int] = (6, 10)
    streams: tuple[str, ...] = (TO_SOUND, TO_TEXT, MATCHING)
    video: str = "video"
    words: str = "words"
    audio: str | None = "audio"
    web_text: str | None = "web_text"
    chosen: int = 48
    favour: float = 4.0
    scale_max: float = 100.0
    scaled: bool = False

    def setup(self) -> None:
        self._check()
        blocks = self.blocks
        normal, xavier = nn.initializers.normal(TOKEN_STD), nn.initializers.xavier_uniform()
        init = nn.with_logical_partitioning(normal if blocks.width <= LARGE else xavier, ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, blocks.width, dtype=jnp.dtype(blocks.dtype), embedding_init=init)
        self.span = ReserveEncoder(replace(blocks, depth=self.span_depth), cls=True, scaled=self.scaled)
        self.joint = ReserveEncoder(blocks, scaled=self.scaled)
        self.head = dense(blocks.width, ("embed", None), reserve_init(blocks.width), dtype=blocks.dtype)
        self.log_scale = parameter(self, "log_scale", nn.initializers.ones, (None,), (len(LOSSES),))

    def views(self) -> tuple[View, ...]:
        return tuple(View(name) for name in (self.video, self.audio) if name is not None)

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have words or a text of the web."""
        there = valid(batch, self.words)
        return there if self.web_text is None else there | valid(batch, self.web_text)

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> ReserveOutputs:
        video = self._parts(encoded, batch, self.video)
        audio = None if self.audio is None else self._parts(encoded, batch, self.audio)
        rows = {name: stream_of_words(batch, self.words, name) for name in self.streams}
        spans = [spans_of_words(batch, self.words)]
        if self.web_text is not None:
            rows[WEB] = stream_of_web_text(batch, self.web_text)
            spans.append(spans_of_web_text(batch, self.web_text))
        states = self._states({name: self._joined(one, audio, video) for name, one in rows.items()}, rows, context)
        found = {}
        if MATCHING in rows:
            found[FRAMES] = self._frames(rows[MATCHING], states[MATCHING], video)
        if TO_SOUND in rows and audio is not None:
            found[SOUNDS] = self._sounds(rows[TO_SOUND], states[TO_SOUND], audio, batch)
        counts = [each.lengths.shape[1] for each in spans]
        found[SPANS] = self._spans(rows, states, joined_spans(spans), counts, context)
        scores = None
        if sum(counts) > self.chosen:
            of_words, *of_web = counts
            more = jnp.array([math.log(self.favour)] * of_words + [0.0] * sum(of_web))
            scores = drawn_scores(_folded(context.keys, DRAWS), more)
        return ReserveOutputs(found, scores)

    def batch_loss(
        self, outputs: ReserveOutputs, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        vectors = dict(outputs.vectors)
        if outputs.scores is not None:
            spans = vectors[SPANS]
            these = chosen_spans(outputs.scores, spans.x_valid, self.chosen * len(spans.x_valid))
            vectors[SPANS] = spans._replace(x_valid=these, y_valid=these)
        total, metrics = jnp.zeros(()), {}
        for place, name in enumerate(LOSSES):
            if name in vectors:
                scale = jnp.exp(at_most(self.log_scale[place], math.log(self.scale_max)))
                loss, told = contrasted(vectors[name], scale)
                metrics |= {f"loss/{name}": loss, f"accuracy/{name}": told["accuracy"], f"logit_scale/{name}": scale}
                total += loss
        return total, metrics

    def _parts(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], input: str) -> EncodedParts:
        view = encoded[View(input)]
        return encoded_parts(view.tokens, view.token_mask, batch[input].shape[1], valid(batch, input), input)

    def _joined(self, rows: StreamRows, audio: EncodedParts | None, video: EncodedParts) -> JointRows:
        return joint_rows(rows, self.token(rows.ids), audio, video, self.grid)

    def _states(
        self, joint: Mapping[str, JointRows], rows: Mapping[str, StreamRows], context: Context
    ) -> dict[str, Float[Array, "b p d"]]:
        """The joint transformer's states of the tokens of each stream, row after row: sequences of one length are read
        together."""
        by_length: dict[int, list[str]] = {}
        for name, one in joint.items():
            by_length.setdefault(one.x.shape[2], []).append(name)
        found = {}
        for length, names in by_length.items():
            x, places, blocks = (jnp.concatenate(some, axis=1) for some in zip(*map(joint.get, names), strict=True))
            batch, count, _, width = x.shape
            keys = self._dropout_keys(context, OF_ROWS + length, count)
            flat = x.reshape(-1, length, width), places.reshape(-1, length, 4)
            read = self.joint(*flat, None, context.train, keys, sees(blocks.reshape(-1, length)))
            begin, read = 0, read.reshape(batch, count, length, width)
            for name in names:
                own, tokens = rows[name].ids.shape[1:]
                found[name] = read[:, begin : begin + own, :tokens].reshape(batch, own * tokens, width)
                begin += own
        return found

    def _frames(self, rows: StreamRows, states: Float[Array, "b p d"], video: EncodedParts) -> ComparedVectors:
        wanted = jnp.broadcast_to(jnp.arange(video.real.shape[1]), video.real.shape)
        at, there = found_at(_flat(rows.frame), wanted)
        there &= video.real  # of an example without words no frame is compared
        return compared_vectors(self._taken(states, at), video.vector, there, there)

    def _sounds(
        self, rows: StreamRows, states: Float[Array, "b p d"], audio: EncodedParts, batch: Mapping[str, Array]
    ) -> ComparedVectors:
        removed = batch[f"{self.words}_places"]
        wanted = removed[:, : removed.shape[1] // 2]  # those of the first stream
        at, there = found_at(_flat(rows.target), wanted)
        return compared_vectors(self._taken(states, at), audio.vector, there, audio.real, wanted)

    def _spans(
        self,
        rows: Mapping[str, StreamRows],
        states: Mapping[str, Float[Array, "b p d"]],
        spans: SpanRows,
        counts: list[int],
        context: Context,
    ) -> ComparedVectors:
        of_words = [name for name in (TO_SOUND, TO_TEXT) if name in rows]
        x, there = [], []
        for count, names in zip(counts, (of_words, [WEB]), strict=False):
            batch = len(spans.lengths)
            if not names:
                x.append(jnp.zeros((batch, count, self.blocks.width), self.blocks.dtype))
                there.append(jnp.zeros((batch, count), bool))
                continue
            pointers = jnp.concatenate([_flat(rows[name].text) for name in names], axis=1)
            at, found = found_at(pointers, jnp.broadcast_to(jnp.arange(count), (batch, count)))
            x.append(self._taken(jnp.concatenate([states[name] for name in names], axis=1), at))
            there.append(found)
        these = jnp.concatenate(there, axis=1) & (spans.lengths > 0)
        return compared_vectors(jnp.concatenate(x, axis=1), self._span_vectors(spans, context), these, these)

    def _span_vectors(self, spans: SpanRows, context: Context) -> Float[Array, "b s d"]:
        batch, count, length = spans.ids.shape
        real = jnp.arange(length) < spans.lengths.reshape(-1, 1)
        places = jnp.arange(1, length + 1)[:, None] / SPAN_PLACES
        keys = self._dropout_keys(context, OF_SPANS, count)
        x = self.token(spans.ids.reshape(-1, length))
        return self.span(x, places, real, context.train, keys)[:, 0].reshape(batch, count, -1)

    def _taken(self, states: Float[Array, "b p d"], at: Int[Array, "b s"]) -> Float[Array, "b s d"]:
        """The head's map of the states in those places."""
        return self.head(jnp.take_along_axis(states, at[..., None], axis=1))

    def _dropout_keys(self, context: Context, use: int, count: int) -> Key[Array, " bc"] | None:
        """A key for each of so many sequences of each example, where dropout acts."""
        return part_keys(_folded(context.keys, use), count) if context.train and self.blocks.dropout else None

    def _check(self) -> None:
        known = (TO_SOUND, TO_TEXT, MATCHING)
        for name in self.streams:
            if name not in known:
                raise UserError(unknown("Reserve.streams has", name, known, "streams"))
        if self.chosen < 1 or self.favour <= 0 or self.scale_max <= 0:
            raise UserError(
                f"Reserve(chosen={self.chosen}, favour={self.favour}, scale_max={self.scale_max}): chosen is a whole "
                "number from 1 on, and the others are above 0"
            )

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data has no such streams, or not as many frames as these have segments; where an
        id has no row in the table, or vectors have another size than the states."""
        self._check()
        self._check_streams(path, inputs)
        for name in (self.video, self.audio):
            size = None if name is None else getattr(towers[name], "embedding_size", None)
            if size not in (None, self.blocks.width):
                raise UserError(
                    f"{path}.blocks.width={self.blocks.width}, and towers.{name} is {size} wide: set them alike"
                )
        cells = getattr(towers[self.video], "rows_columns", None)
        if cells is not None and tuple(cells) != tuple(self.grid):
            raise UserError(
                f"{path}.grid={self.grid}, and a frame of towers.{self.video} has {cells} tokens: set it to that"
            )

    def _check_streams(self, path: str, inputs: Mapping[str, Incoming]) -> None:
        wanted = {self.words: (*self.streams, "ReserveStreams"), self.web_text: ("spans", "MaskSpans")}
        for name, (*labels, ends) in wanted.items():
            if name is None:
                continue
            if name not in inputs or not {*labels, "lengths"} <= set(inputs[name].labels):
                raise UserError(
                    f"{path} reads the streams of {name!r}, and data.transforms has no chain of such: end it in "
                    f"{ends}(...)"
                )
            if (needed := inputs[name].pieces + self.special) > self.vocab:
                raise UserError(
                    f"the tokenizer of {name!r} has up to {inputs[name].pieces} pieces, and with {self.special} "
                    f"special ids {path}.vocab={self.vocab} has no room for them: set it to {needed}"
                )


def _flat(pointers: Int[Array, "b r l"]) -> Int[Array, "b p"]:
    return pointers.reshape(len(pointers), -1)


def _folded(keys: Key[Array, " b"], use: int) -> Key[Array, " b"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)
