"""Reads MERLOT Reserve's streams of tokens from a batch, with what their pointers point to."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.objectives.contract import entry, valid

NOTHING = -1  # a pointer that points to nothing, and the block of what isn't real
TO_SOUND, TO_TEXT, MATCHING = "text2audio", "audio2text", "matching"


class StreamRows(NamedTuple):
    """Rows of tokens, each `[B, R, L]`, as `mmjax.data.ReserveStreams` has them.

    ids: the tokens. segments: the place of each in time. blocks: two tokens of a row see each other where these are
    equal; -1: it is none. audio: the token of the sound that fills the place. text, target, frame: the span, the clip
    and the frame that the state there must match. frame_blocks: `[B, R, S]`, the block of each frame that a row reads,
    those of the first row before those of the second; None: it reads none.
    """

    ids: Int[Array, "b r l"]
    segments: Int[Array, "b r l"]
    blocks: Int[Array, "b r l"]
    audio: Int[Array, "b r l"]
    text: Int[Array, "b r l"]
    target: Int[Array, "b r l"]
    frame: Int[Array, "b r l"]
    frame_blocks: Int[Array, "b r s"] | None = None


class SpanRows(NamedTuple):
    """The texts that were removed: ids `[B, S, L]`, and how many of each are its own, 0 for a row that is none."""

    ids: Int[Array, "b s l"]
    lengths: Int[Array, "b s"]


def stream_of_words(batch: Mapping[str, Array], words: str, stream: str) -> StreamRows:
    """One of the streams of the words of a window; nothing is real of an example that lacks them.

    Segments are counted as the released code does: from 0 in each row that has frames, else by the tokens that match a
    frame, from 1 on.
    """
    there = valid(batch, words)[:, None, None]
    named = f"{words}_{stream}"

    def pointer(name: str) -> Array:
        return jnp.where(there, entry(batch, f"{named}_{name}"), NOTHING)

    frame, frame_blocks = pointer("frame_ptr"), None
    if stream == MATCHING:
        segments = jnp.cumsum(frame >= 0, axis=-1)
    else:
        frame_blocks = pointer("frame_blocks")
        segments = entry(batch, f"{named}_segments") % frame_blocks.shape[-1]
    audio, text, target = (pointer(f"{name}_ptr") for name in ("audio", "text", "target"))
    return StreamRows(entry(batch, named), segments, pointer("blocks"), audio, text, target, frame, frame_blocks)


def stream_of_web_text(batch: Mapping[str, Array], web_text: str) -> StreamRows:
    """The one row of a text of the web, with spans that are masked."""
    there = valid(batch, web_text)[:, None]
    ids = entry(batch, web_text)[:, None]
    real = (there & entry(batch, f"{web_text}_mask"))[:, None]
    text = jnp.where(there, entry(batch, f"{web_text}_text_ptr"), NOTHING)[:, None]
    nothing = jnp.full_like(ids, NOTHING)
    blocks = jnp.where(real, 0, NOTHING)
    return StreamRows(ids, jnp.zeros_like(ids), blocks, nothing, text, nothing, nothing)


def spans_of_words(batch: Mapping[str, Array], words: str) -> SpanRows:
    """The spans that were removed from the streams of words."""
    lengths = jnp.where(valid(batch, words)[:, None], entry(batch, f"{words}_lengths"), 0)
    return SpanRows(entry(batch, words), lengths)


def spans_of_web_text(batch: Mapping[str, Array], web_text: str) -> SpanRows:
    """The spans that were removed from a text of the web."""
    lengths = jnp.where(valid(batch, web_text)[:, None], entry(batch, f"{web_text}_lengths"), 0)
    return SpanRows(entry(batch, f"{web_text}_spans"), lengths)


def joined_spans(spans: list[SpanRows]) -> SpanRows:
    """All spans of an example, those of the first before those of the second."""
    longest = max(each.ids.shape[2] for each in spans)
    ids = [jnp.pad(each.ids, ((0, 0), (0, 0), (0, longest - each.ids.shape[2]))) for each in spans]
    return SpanRows(jnp.concatenate(ids, axis=1), jnp.concatenate([each.lengths for each in spans], axis=1))


def numbered_spans(spans: SpanRows) -> Int[Array, "b s"]:
    """A number from 0 on for each span: the same for those of the same ids. By a hash of 31 bits, so that of 50,000
    different spans about one pair shares its number."""
    numbers = jnp.zeros(spans.lengths.shape, jnp.uint32)
    for place in range(spans.ids.shape[2]):
        more = (numbers ^ (spans.ids[..., place] + 1).astype(jnp.uint32)) * jnp.uint32(0x01000193)
        more ^= more >> 15
        numbers = jnp.where(place < spans.lengths, more * jnp.uint32(0x85EBCA6B), numbers)
    return (numbers >> 1).astype(jnp.int32)


def flat_pointers(pointers: Int[Array, "b r l"]) -> Int[Array, "b p"]:
    """Those of all rows, one row after the other."""
    return pointers.reshape(len(pointers), -1)


def span_pointers(
    rows: Mapping[str, StreamRows], states: Mapping[str, Float[Array, "b p d"]], names: Sequence[str]
) -> tuple[Int[Array, "b p"], Float[Array, "b p d"]]:
    """The pointers to spans of those of these streams that there are, and the states in their places. Where there is
    none of them, one pointer that points to nothing."""
    if there := [name for name in names if name in rows]:
        pointers = jnp.concatenate([flat_pointers(rows[name].text) for name in there], axis=1)
        return pointers, jnp.concatenate([states[name] for name in there], axis=1)
    state = next(iter(states.values()))[:, :1]
    return jnp.full(state.shape[:2], NOTHING), state


def found_at(pointers: Int[Array, "b p"], wanted: Int[Array, "b s"]) -> tuple[Int[Array, "b s"], Bool[Array, "b s"]]:
    """The first place of each row of pointers that points to each of `wanted`, and whether there is one."""
    points = pointers[:, None] == wanted[:, :, None]
    return jnp.argmax(points, axis=-1), points.any(axis=-1)
