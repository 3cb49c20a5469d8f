"""Lays out the sequences that MERLOT Reserve's joint transformer reads: tokens of text and of sound, then of frames."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError
from mmjax.models.towers.reserve.encoder import on_grid
from mmjax.objectives.reserve.streams import NOTHING, StreamRows

SEGMENTS, TOKENS = 16.0, 1024.0  # the places along these axes are shares of so many, whatever a sequence has


class EncodedParts(NamedTuple):
    """The parts of an example's input, its frames or clips, as their tower encoded them: of each the vector by which it
    is compared, the tokens that are read, and whether it is real.
    """

    vector: Float[Array, "b k d"]
    tokens: Float[Array, "b k m d"]
    real: Bool[Array, "b k"]


class JointRows(NamedTuple):
    """Sequences for the joint transformer: tokens, their places along the axes of rows, columns, segments and tokens,
    and their blocks: two tokens see each other where these are equal; -1: it isn't real.
    """

    x: Float[Array, "b r n d"]
    places: Float[Array, "b r n 4"]
    blocks: Int[Array, "b r n"]


def encoded_parts(
    tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"], count: int, there: Bool[Array, " b"], input: str
) -> EncodedParts:
    """The encoded parts of an input of so many parts. there: the examples that have it.

    Raises UserError where the tokens aren't those of so many parts.
    """
    batch, length, width = tokens.shape
    if length % count or length == count:
        raise UserError(
            f"the tower of {input!r} gives {length} tokens for {count} parts: of each it gives a vector and tokens "
            "(ReserveVision, ReserveAudio)"
        )
    each = tokens.reshape(batch, count, length // count, width)
    real = mask.reshape(batch, count, -1).all(axis=2) & there[:, None]
    return EncodedParts(each[:, :, 0], each[:, :, 1:], real)


def joint_rows(
    rows: StreamRows,
    vectors: Float[Array, "b r l d"],
    audio: EncodedParts | None,
    video: EncodedParts,
    grid: tuple[int, int],
) -> JointRows:
    """The sequences of one stream: its tokens, `vectors` or those of the sound, and then those of its frames.

    audio: None: there is no sound, and its places aren't real. grid: rows and columns of a frame's tokens.

    Raises UserError where a frame has other tokens, or there are more or fewer frames than segments.
    """
    text = _texts(rows, vectors, audio)
    if rows.frame_blocks is None:
        return text
    frames = _frames(rows.frame_blocks, video, grid)
    frames = frames._replace(x=frames.x.astype(text.x.dtype))
    return JointRows(*(jnp.concatenate(both, axis=2) for both in zip(text, frames, strict=True)))


def _texts(rows: StreamRows, vectors: Float[Array, "b r l d"], audio: EncodedParts | None) -> JointRows:
    batch, _, length = rows.ids.shape
    heard, blocks = rows.audio >= 0, rows.blocks
    if audio is None:
        blocks = jnp.where(heard, NOTHING, blocks)
    else:
        each = audio.tokens.shape[2]
        at = jnp.maximum(rows.audio, 0).reshape(batch, -1)
        tokens = audio.tokens.reshape(batch, -1, vectors.shape[-1])
        sound = jnp.take_along_axis(tokens, at[..., None], axis=1, mode="clip").reshape(vectors.shape)
        real = jnp.take_along_axis(audio.real, at // each, axis=1, mode="clip").reshape(heard.shape)
        vectors = jnp.where(heard[..., None], sound.astype(vectors.dtype), vectors)
        blocks = jnp.where(heard & ~real, NOTHING, blocks)
    segment = rows.segments / SEGMENTS
    token = jnp.broadcast_to(jnp.arange(1, length + 1) / TOKENS, segment.shape)
    nowhere = jnp.zeros_like(segment)
    return JointRows(vectors, jnp.stack([nowhere, nowhere, segment, token], axis=-1), blocks)


def _frames(frame_blocks: Int[Array, "b r s"], video: EncodedParts, grid: tuple[int, int]) -> JointRows:
    batch, count, frames = frame_blocks.shape
    each, width = video.tokens.shape[2:]
    if each != grid[0] * grid[1] or video.real.shape[1] != count * frames:
        raise UserError(
            f"the frames are {video.real.shape[1]} of {each} tokens, and the streams of words have {count * frames} "
            f"segments, with a grid of {grid[0]}x{grid[1]} tokens a frame: set grid to the tower's, and as many "
            "segments as frames"
        )
    cells, segment = on_grid(*grid), jnp.arange(frames) / SEGMENTS
    places = jnp.zeros((frames, each, 4)).at[..., :2].set(cells).at[..., 2].set(segment[:, None])
    places = jnp.broadcast_to(places.reshape(-1, 4), (batch, count, frames * each, 4))
    blocks = jnp.where(video.real.reshape(frame_blocks.shape), frame_blocks, NOTHING)
    tokens = video.tokens.reshape(batch, count, frames * each, width)
    return JointRows(tokens, places, jnp.repeat(blocks, each, axis=2))


def read_together(joint: Mapping[str, JointRows]) -> list[tuple[list[str], JointRows]]:
    """The sequences of several streams, those of one length behind each other, with the names of their streams."""
    by_length: dict[int, list[str]] = {}
    for name, rows in joint.items():
        by_length.setdefault(rows.x.shape[2], []).append(name)
    return [
        (names, JointRows(*(jnp.concatenate(some, axis=1) for some in zip(*map(joint.get, names), strict=True))))
        for names in by_length.values()
    ]


def sees(blocks: Int[Array, "b n"]) -> Bool[Array, "b n n"]:
    """A mask of the tokens that each token of a sequence may attend to: those of its block."""
    return (blocks[:, :, None] == blocks[:, None]) & (blocks != NOTHING)[:, None]
