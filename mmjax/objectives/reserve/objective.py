"""The objective of MERLOT Reserve: masked words and sounds of a video are found among all those of the batch."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import part_keys
from mmjax.models.layers.parameters import dense, parameter, reserve_init
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.reserve.encoder import ReserveEncoder
from mmjax.objectives.contract import Context, View, valid
from mmjax.objectives.contrastive.objective import at_most
from mmjax.objectives.reserve.checks import check_chosen, check_frames, check_numbers, check_streams, check_width
from mmjax.objectives.reserve.compared import (
    ComparedVectors,
    ReserveOutputs,
    chosen_spans,
    compared_vectors,
    drawn_scores,
    summed_losses,
)
from mmjax.objectives.reserve.masked_words import mask_places, word_errors
from mmjax.objectives.reserve.sequences import EncodedParts, JointRows, encoded_parts, joint_rows, read_together, sees
from mmjax.objectives.reserve.streams import (
    MATCHING,
    TO_SOUND,
    TO_TEXT,
    SpanRows,
    StreamRows,
    flat_pointers,
    found_at,
    joined_spans,
    numbered_spans,
    span_pointers,
    spans_of_web_text,
    spans_of_words,
    stream_of_web_text,
    stream_of_words,
)
from mmjax.objectives.token_errors import TokenErrors, averaged

FRAMES, SOUNDS, SPANS = LOSSES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")  # in the order of their scales
WEB, WORDS = "web_text", "masked_words"
STREAMS = (TO_SOUND, TO_TEXT, MATCHING)
SPAN_PLACES = 16.0  # the places of a span's tokens are shares of so many
LARGE = 768  # the table of wider models starts as Glorot's
TOKEN_STD = 0.02
DRAWS, OF_SPANS, OF_ROWS = range(3)  # folded into an example's key


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

    Metrics of each of them, besides the loss: `loss/<loss>`, `accuracy/<loss>` (as `Contrastive`'s),
    `candidates/<loss>`, the number that a state chooses from, and `logit_scale/<loss>`.

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
        scale_init, scale_max: the scales of the logits start at the first, and are clipped at the second.
        scaled: whether rotary positions scale channels and don't turn them, as the released code did.
        losses: those that are summed.
        extra: whether the sounds that weren't removed are candidates too.
        equal_spans: whether a state matches all spans of the same ids, and not only its own: the paper's doesn't, and
            where few words are said often, nothing can tell them apart.
        masked_words: whether each token of a span is predicted by the table's rows in place of `stuff_to_span`, a
            comparison of the paper's; it takes `ReserveStreams(mask_each=True)`. Its metrics are `loss/masked_words`
            and `accuracy/masked_words`, over the tokens.
    """

    blocks: Blocks
    span_depth: int = 4
    vocab: int = 32_768
    special: int = 10
    grid: tuple[int, int] = (6, 10)
    streams: tuple[str, ...] = STREAMS
    video: str = "video"
    words: str = "words"
    audio: str | None = "audio"
    web_text: str | None = "web_text"
    chosen: int = 48
    favour: float = 4.0
    scale_init: float = math.e
    scale_max: float = 100.0
    scaled: bool = False
    losses: tuple[str, ...] = LOSSES
    extra: bool = True
    equal_spans: bool = False
    masked_words: bool = False

    def setup(self) -> None:
        self._check()
        blocks = self.blocks
        normal, xavier = nn.initializers.normal(TOKEN_STD), nn.initializers.xavier_uniform()
        init = nn.with_logical_partitioning(normal if blocks.width <= LARGE else xavier, ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, blocks.width, dtype=jnp.dtype(blocks.dtype), embedding_init=init)
        if self.knows_spans:
            self.span = ReserveEncoder(replace(blocks, depth=self.span_depth), cls=True, scaled=self.scaled)
        self.joint = ReserveEncoder(blocks, scaled=self.scaled)
        self.head = dense(blocks.width, ("embed", None), reserve_init(blocks.width), dtype=blocks.dtype)
        self.log_scale = parameter(
            self, "log_scale", nn.initializers.constant(math.log(self.scale_init)), (None,), (len(LOSSES),)
        )

    @property
    def knows_spans(self) -> bool:
        """True where it has an encoder of spans."""
        return SPANS in self.losses and not self.masked_words

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
        states = self._states(
            {name: joint_rows(one, self.token(one.ids), audio, video, self.grid) for name, one in rows.items()},
            rows,
            context,
        )
        found: dict[str, ComparedVectors] = {}
        if FRAMES in self.losses and MATCHING in rows:
            found[FRAMES] = self._frames(rows[MATCHING], states[MATCHING], video)
        if SOUNDS in self.losses and TO_SOUND in rows and audio is not None:
            found[SOUNDS] = self._sounds(rows[TO_SOUND], states[TO_SOUND], audio, batch)
        if SPANS not in self.losses:
            return ReserveOutputs(found, None)
        if self.masked_words:
            return ReserveOutputs(found, None, self._words(rows, states, spans))
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
        limit = math.log(self.scale_max)
        scales = {name: jnp.exp(at_most(self.log_scale[place], limit)) for place, name in enumerate(LOSSES)}
        total, metrics = summed_losses(vectors, scales)
        if outputs.words is not None:
            loss, told = averaged(outputs.words, self.counted(batch))
            metrics |= {f"loss/{WORDS}": loss, f"accuracy/{WORDS}": told["accuracy"]}
            total += loss
        return total, metrics

    def _parts(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], input: str) -> EncodedParts:
        view = encoded[View(input)]
        return encoded_parts(view.tokens, view.token_mask, batch[input].shape[1], valid(batch, input), input)

    def _states(
        self, joint: Mapping[str, JointRows], rows: Mapping[str, StreamRows], context: Context
    ) -> dict[str, Float[Array, "b p d"]]:
        """The joint transformer's states of the tokens of each stream, row after row: sequences of one length are read
        together."""
        found = {}
        for names, (x, places, blocks) in read_together(joint):
            batch, count, length, width = x.shape
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
        at, there = found_at(flat_pointers(rows.frame), wanted)
        there &= video.real  # of an example without words no frame is compared
        return compared_vectors(self._taken(states, at), video.vector, there, there)

    def _sounds(
        self, rows: StreamRows, states: Float[Array, "b p d"], audio: EncodedParts, batch: Mapping[str, Array]
    ) -> ComparedVectors:
        removed = batch[f"{self.words}_places"]
        wanted = removed[:, : removed.shape[1] // 2]  # those of the first stream
        at, there = found_at(flat_pointers(rows.target), wanted)
        candidates = audio.real
        if not self.extra:
            own = wanted[:, :, None] == jnp.arange(candidates.shape[1])
            candidates &= jnp.any(own & there[:, :, None], axis=1)
        return compared_vectors(self._taken(states, at), audio.vector, there, candidates, wanted)

    def _spans(
        self,
        rows: Mapping[str, StreamRows],
        states: Mapping[str, Float[Array, "b p d"]],
        spans: SpanRows,
        counts: list[int],
        context: Context,
    ) -> ComparedVectors:
        x, there = [], []
        for count, (pointers, read) in zip(counts, self._masks(rows, states), strict=True):
            at, found = found_at(pointers, jnp.broadcast_to(jnp.arange(count), (len(pointers), count)))
            x.append(self._taken(read, at))
            there.append(found)
        these = jnp.concatenate(there, axis=1) & (spans.lengths > 0)
        vectors = compared_vectors(jnp.concatenate(x, axis=1), self._span_vectors(spans, context), these, these)
        return vectors._replace(alike=numbered_spans(spans)) if self.equal_spans else vectors

    def _words(
        self, rows: Mapping[str, StreamRows], states: Mapping[str, Float[Array, "b p d"]], spans: list[SpanRows]
    ) -> TokenErrors:
        found = []
        for one, (pointers, read) in zip(spans, self._masks(rows, states), strict=True):
            at, masked = mask_places(pointers, one)
            taken = self._taken(read, at.reshape(len(at), -1)).reshape(*at.shape, -1)
            found.append(word_errors(taken, self.token.embedding, one.ids, masked))
        return jax.tree.map(lambda *some: sum(some), *found)

    def _masks(
        self, rows: Mapping[str, StreamRows], states: Mapping[str, Float[Array, "b p d"]]
    ) -> list[tuple[Int[Array, "b p"], Float[Array, "b p d"]]]:
        """The pointers to spans with the states in their places: of the streams of words, and of the web's text."""
        of_web = [] if self.web_text is None else [(WEB,)]
        return [span_pointers(rows, states, names) for names in [(TO_SOUND, TO_TEXT), *of_web]]

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
        check_chosen("streams", self.streams, STREAMS, "streams")
        check_chosen("losses", self.losses, LOSSES, "losses")
        check_numbers(self.chosen, self.favour, self.scale_init, self.scale_max)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data has no such streams, or not as many frames as these have segments; where an
        id has no row in the table, or vectors have another size than the states."""
        self._check()
        for name, ends, labels in (
            (self.words, "ReserveStreams", self.streams),
            (self.web_text, "MaskSpans", ("spans",)),
        ):
            if name is not None:
                check_streams(path, name, ends, labels, inputs, self.vocab, self.special)
        for name in (self.video, self.audio):
            if name is not None:
                check_width(path, self.blocks.width, name, towers)
        check_frames(path, self.grid, self.video, towers)


def _folded(keys: Key[Array, " b"], use: int) -> Key[Array, " b"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)
