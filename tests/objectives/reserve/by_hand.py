"""MERLOT Reserve's objective in float64 NumPy: one example, one row, one token at a time."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.models.towers.reserve import twin
from tests.objectives.reserve.windows import AUDIO_TOKENS, CLIPS, GROUPS, SEGMENTS


class Part(NamedTuple):
    """One frame or clip: its vector, and its tokens; None where it isn't real."""

    vector: np.ndarray
    tokens: np.ndarray


class Row(NamedTuple):
    """One sequence: tokens, their four coordinates, and what each may see; how many tokens come first of text."""

    x: np.ndarray
    places: np.ndarray
    allowed: np.ndarray


def parts(tokens: np.ndarray, real: np.ndarray, count: int) -> list[Part | None]:
    """tokens, real: of one example, `[parts, each, d]` and `[parts]`."""
    each = np.asarray(tokens, np.float64).reshape(count, -1, tokens.shape[-1])
    return [Part(one[0], one[1:]) if there else None for one, there in zip(each, real, strict=True)]


def row_of(
    given: Mapping[str, np.ndarray],
    stream: str,
    example: int,
    row: int,
    table: np.ndarray,
    video: list[Part | None],
    audio: list[Part | None],
    grid: tuple[int, int],
) -> Row:
    """One sequence, token by token; `web_text` is the stream of that name."""
    name = "web_text" if stream == "web_text" else f"words_{stream}"
    ids = given[name][example] if stream == "web_text" else given[name][example, row]
    x, places, blocks, count = [], [], [], 0
    for place, id in enumerate(ids):
        vector, segment = table[id], 0
        block = 0 if stream == "web_text" else given[f"{name}_blocks"][example, row, place]
        if stream == "web_text":
            block = 0 if given["web_text_mask"][example, place] else -1
        elif stream == "matching":
            count += given[f"{name}_frame_ptr"][example, row, place] >= 0
            segment = count
        else:
            segment = given[f"{name}_segments"][example, row, place] % (SEGMENTS // GROUPS)
        sound = -1 if stream == "web_text" else given[f"{name}_audio_ptr"][example, row, place]
        if sound >= 0:
            clip = audio[sound // AUDIO_TOKENS] if audio else None
            if clip is None:
                block = -1
            else:
                vector = clip.tokens[sound % AUDIO_TOKENS]
        x.append(vector)
        places.append((0.0, 0.0, segment / 16, (place + 1) / 1024))
        blocks.append(int(block))
    if stream in ("text2audio", "audio2text"):
        first = row * SEGMENTS // GROUPS
        for frame in range(SEGMENTS // GROUPS):
            part = video[first + frame]
            for cell, at in enumerate(twin.grid_places(*grid)):
                x.append(np.zeros(table.shape[1]) if part is None else part.tokens[cell])
                places.append((*at, frame / 16, 0.0))
                blocks.append(-1 if part is None else int(given[f"{name}_frame_blocks"][example, row, frame]))
    allowed = np.array([[a == b and b >= 0 for b in blocks] for a in blocks])
    return Row(np.array(x), np.array(places), allowed)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.sum(x * x) + 1e-5)


def info_nce_of_equals(x: list[np.ndarray], y: list[np.ndarray], names: list[Any], scale: float) -> tuple[float, float]:
    """The same without further candidates, where each matches all targets of its own's name: the logarithm of a
    softmax, as a mean over them. A hit: the nearest of them is nearer than all others."""
    xs, ys = (np.array([unit(one) for one in some]) for some in (x, y))
    alike = np.array([[a == b for b in names] for a in names])
    losses, hits = [], []
    for logits in (scale * xs @ ys.T, scale * ys @ xs.T):
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - (logits * alike).sum(1) / alike.sum(1)))
        hits.append(np.mean(np.where(alike, logits, -np.inf).max(1) > np.where(alike, -np.inf, logits).max(1)))
    return float(np.mean(losses)), float(np.mean(hits))


def info_nce(x: list[np.ndarray], y: list[np.ndarray], extra: list[np.ndarray], scale: float) -> tuple[float, float]:
    """Half of each direction's mean, and the mean of both directions' accuracies."""
    xs, ys = (np.array([unit(one) for one in some]) for some in (x, y))
    more = np.array([unit(one) for one in [*y, *extra]])
    forward, backward = scale * xs @ more.T, scale * ys @ xs.T
    losses, hits = [], []
    for logits in (forward, backward):
        own = np.arange(len(xs))
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[own, own]))
        hits.append(np.mean(logits.argmax(1) == own))
    return float(np.mean(losses)), float(np.mean(hits))


class Found(NamedTuple):
    """All that is compared: pairs by loss, and the sounds that nothing was removed from. ids: of the spans, in their
    pairs' order. words: the state of each mask of a span, with the span's next id.
    """

    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    extra: list[np.ndarray]
    ids: list[tuple[int, ...]]
    words: list[tuple[np.ndarray, int]]


def compared(
    given: Mapping[str, np.ndarray],
    held: Any,
    video: np.ndarray,
    audio: np.ndarray | None,
    grid: tuple[int, int],
    scaled: bool = False,
    streams: tuple[str, ...] = ("text2audio", "audio2text", "matching", "web_text"),
) -> Found:
    """held: the objective's parameters in float64; video, audio: the towers' tokens of all examples."""
    table, pairs, extra, ids, words = held["token"]["embedding"], {}, [], [], []
    for example in range(len(given["index"])):
        frames = parts(video[example], given["video_mask"][example] & given["video_valid"][example], SEGMENTS)
        heard = given["audio_mask"][example] & given["audio_valid"][example]
        clips = [] if audio is None else parts(audio[example], heard, CLIPS)
        removed = set()
        for stream in streams:
            name = "web_text" if stream == "web_text" else f"words_{stream}"
            if not given["web_text_valid" if stream == "web_text" else "words_valid"][example]:
                continue
            for row in range(GROUPS if stream in ("text2audio", "audio2text") else 1):
                made = row_of(given, stream, example, row, table, frames, clips, grid)
                states = twin.encoded(made.x, held["joint"], made.places, made.allowed, scaled=scaled)
                at = (example,) if stream == "web_text" else (example, row)
                met: dict[int, int] = {}
                for place in range(given[name].shape[-1]):
                    state = twin.linear(states[place], held["head"])
                    if (span := given[f"{name}_text_ptr"][*at, place]) >= 0 and stream != "matching":
                        of = ("web_text_spans", "web_text") if stream == "web_text" else ("words", "words")
                        length = given[f"{of[1]}_lengths"][example, span]
                        own = given[of[0]][example, span, :length]
                        if length and met.setdefault(span, 0) < length:
                            words.append((state, own[met[span]]))
                        if length and not met[span] and "span" in held:
                            pairs.setdefault("stuff_to_span", []).append((state, span_vector(own, held, table, scaled)))
                            ids.append(tuple(own.tolist()))
                        met[span] = met.get(span, 0) + 1
                    frame = given[f"{name}_frame_ptr"][*at, place] if stream == "matching" else -1
                    if frame >= 0 and (part := frames[frame]) is not None:
                        pairs.setdefault("imgs_to_audio", []).append((state, part.vector))
                    clip = given[f"{name}_target_ptr"][*at, place] if stream == "text2audio" else -1
                    if clip >= 0 and clips and (part := clips[clip]) is not None:
                        removed.add(clip)
                        pairs.setdefault("text_to_audio", []).append((state, part.vector))
        extra += [part.vector for k, part in enumerate(clips) if part is not None and k not in removed]
    return Found(pairs, extra, ids, words)


def span_vector(ids: np.ndarray, held: Any, table: np.ndarray, scaled: bool) -> np.ndarray:
    places = (np.arange(len(ids)) + 1)[:, None] / 16
    return twin.encoded(table[ids], held["span"], places, cls=True, scaled=scaled)[0]
