"""Reads subtitles as words with times: WebVTT, SubRip (SRT), and JSON of words.

A cue without times of its words is divided over them by their numbers of letters. Rolling captions, whose cues begin
with the lines of the cue before, give each word once.
"""

import html
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmjax.data.bad_example import BadExample

_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_INNER = re.compile(rf"<{_CLOCK}>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</>|\{\\[^{}]*\}")  # WebVTT's and HTML's; SubStation's, which SRT has borrowed
_BLOCK = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_TOUCHING = 0.05  # seconds between two cues of which the second may go on with the first's lines
_LATEST = 1e9  # seconds; no video has times behind it
_FLASH = 0.1  # seconds for which a rolling caption shows a finished line alone


class TimedWord(NamedTuple):
    """A word with its start and end, in seconds."""

    text: str
    start: float
    end: float


class Subtitles(NamedTuple):
    """Words in the order of their starts. encoding: of the bytes, "str" where a text was given; guessed: whether it is
    known by the failure of UTF-8 alone; skipped: the number of cues, lines or words that were left out as broken.
    """

    words: list[TimedWord]
    encoding: str
    guessed: bool
    skipped: int


class _Cue(NamedTuple):
    start: float
    end: float
    lines: list[str]  # with their tags


def timed_words(content: bytes | str) -> Subtitles:
    """Reads the words of a file of subtitles, whose format its content tells.

    Bytes are UTF-8, or UTF-16 with its mark, or else taken for Windows-1252. A cue that ends before it starts, whose
    times can't be read, or a line that is in no cue is skipped and counted; so is a word of JSON without times.

    Args:
        content: the file's bytes, or its text. WebVTT begins with its name; JSON is a list of words, each with "word"
            or "text", "start" and "end" (seconds), or Whisper's {"segments": [{"words": [...]}]}; the rest is SRT.

    Raises:
        BadExample: no word remains ("empty"), or it is no such file ("undecodable").
    """
    text, encoding, guessed = _text(content)
    if text.startswith("WEBVTT"):
        words, skipped = _of_cues(*_cues(text.split("\n"), header=True))
    elif text.lstrip()[:1] in ("[", "{"):
        words, skipped = _of_json(text)
    elif "-->" in text:
        words, skipped = _of_cues(*_cues(text.split("\n"), header=False))
    elif not text.strip():
        raise BadExample("the subtitles are empty", "empty")
    else:
        raise BadExample(
            f"the subtitles are neither WebVTT nor SRT nor JSON: they begin with {text.strip()[:30]!r}", "undecodable"
        )
    if not words:
        raise BadExample(f"the subtitles hold no word ({skipped:,} broken cues, lines or words were skipped)", "empty")
    return Subtitles(sorted(words, key=lambda word: (word.start, word.end)), encoding, guessed, skipped)


def timed_cues(content: bytes | str) -> list[TimedWord]:
    """The text of each cue of WebVTT or SRT, with its times, in the order of their starts. What a rolling caption
    repeats is left out, and cues without text and those that `timed_words` skips are too.

    Raises:
        BadExample: no cue remains ("empty"), or it is no such file ("undecodable").
    """
    text, _, _ = _text(content)
    if not text.startswith("WEBVTT") and "-->" not in text:
        raise BadExample(f"the subtitles have no cues: they begin with {text.strip()[:30]!r}", "undecodable")
    cues, _ = _cues(text.split("\n"), header=text.startswith("WEBVTT"))
    cues.sort(key=lambda cue: (cue.start, cue.end))
    told = [
        TimedWord(" ".join(filter(None, map(_plain, cue.lines[count:]))), cue.start, cue.end)
        for cue, count in zip(cues, _repeated(cues), strict=True)
    ]
    if not (told := [cue for cue in told if cue.text]):
        raise BadExample("the subtitles hold no cue with a text", "empty")
    return told


def words_between(words: Sequence[TimedWord], start: float, end: float) -> list[TimedWord]:
    """The words of a window, with times in seconds from its start, cut off at its ends.

    A word belongs to the window that holds its middle (start <= middle < end): windows that tile a video have each word
    once.
    """
    return [
        TimedWord(word.text, max(word.start, start) - start, min(word.end, end) - start)
        for word in words
        if start <= (word.start + word.end) / 2 < end
    ]


def _text(content: bytes | str) -> tuple[str, str, bool]:
    """A content as text with line feeds; its encoding, and whether that is a guess."""
    encoding, guessed = "str", False
    if isinstance(content, bytes):
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        try:
            content = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        except UnicodeDecodeError as error:
            if encoding == "utf-16":
                raise BadExample(
                    f"the subtitles' mark is UTF-16's, which they aren't: {error}", "undecodable"
                ) from error
            encoding, guessed = "windows-1252", True
            content = content.decode(encoding, errors="replace")  # five of its bytes have no letter
    if "\0" in content:
        raise BadExample("the subtitles hold NUL bytes: no text, or UTF-16 without its mark", "undecodable")
    return content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), encoding, guessed


def _cues(lines: Sequence[str], header: bool) -> tuple[list[_Cue], int]:
    """The cues of WebVTT or SRT, and the number of lines and cues that are broken.

    header: whether lines up to the first empty one are a file's head, and an empty line ends a cue.
    """
    cues: list[_Cue] = []
    skipped, inside, block = 0, False, header
    stray: list[str] = []  # lines outside of a cue, which may be the next one's name
    for line in lines:
        if "-->" in line:
            if inside and cues and cues[-1].lines and cues[-1].lines[-1].strip().isdecimal():
                cues[-1].lines.pop()  # the number of this cue, without an empty line before it
            skipped += len(stray) - (1 if stray and (header or stray[-1].strip().isdecimal()) else 0)
            stray, inside, block = [], True, False
            timing = _TIMING.match(line)
            start, end = (_seconds(timing.groups()[:4]), _seconds(timing.groups()[4:])) if timing else (0.0, -1.0)
            cues.append(_Cue(start, end, []))
        elif not line:
            inside, block = False, False
            skipped, stray = skipped + len(stray), []
        elif block:
            continue
        elif header and not inside and not stray and _BLOCK.match(line):
            block = True
        elif inside:
            cues[-1].lines.append(line)
        else:
            stray.append(line)
    good = [cue for cue in cues if cue.start <= cue.end]
    return good, skipped + len(stray) + len(cues) - len(good)


def _seconds(clock: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = clock
    whole = 3_600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)
    return float(f"{whole}.{fraction or 0}")


def _of_cues(cues: list[_Cue], skipped: int) -> tuple[list[TimedWord], int]:
    cues.sort(key=lambda cue: (cue.start, cue.end))
    words: list[TimedWord] = []
    for cue, count in zip(cues, _repeated(cues), strict=True):
        words.extend(_words(cue._replace(lines=cue.lines[count:])))
    return words, skipped


def _repeated(cues: Sequence[_Cue]) -> list[int]:
    """The number of lines at each cue's start that repeat the cue before, where captions roll; else 0.

    They do where at least every other cue repeats one that it touches, and shows more, or a part of it, or it for a
    moment: somebody who says a word twice has two cues of the same text.
    """
    found, rolling = [0], 0
    shown = [_plain(line) for line in cues[0].lines] if cues else []
    for before, cue in itertools.pairwise(cues):
        lines = [_plain(line) for line in cue.lines]
        old, new = [line for line in shown if line], [line for line in lines if line]
        touching = cue.start - before.end <= _TOUCHING
        most = min(len(old), len(new)) if touching else 0
        same = next((count for count in range(most, 0, -1) if old[-count:] == new[:count]), 0)
        rolling += bool(same) and (len(new) > same or len(old) > same or cue.end - cue.start <= _FLASH)
        place, left = 0, same
        while left:
            left -= bool(lines[place])
            place += 1
        found.append(place)
        shown = lines
    return found if 2 * rolling >= len(cues) - 1 > 0 else [0] * len(cues)


def _plain(line: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", _INNER.sub("", line))).split())


def _words(cue: _Cue) -> Iterator[TimedWord]:
    """A cue's words; an inner time, unless it goes back or leaves the cue, says when the text behind it begins."""
    pieces, start, place = [], cue.start, 0
    text = _TAG.sub("", "\n".join(cue.lines))
    for inner in _INNER.finditer(text):
        time = _seconds(inner.groups())
        if start < time <= cue.end:
            pieces.append((_INNER.sub("", text[place : inner.start()]), start, time))
            start, place = time, inner.end()
    yield from _divided([*pieces, (_INNER.sub("", text[place:]), start, cue.end)])


def _divided(pieces: Sequence[tuple[str, float, float]]) -> Iterator[TimedWord]:
    """The words of pieces of text, each of which is divided over its letters; a word may reach into the next piece."""
    letters: list[tuple[str, float, float]] = []
    for text, start, end in pieces:
        shown = html.unescape(text)
        count, place = sum(not letter.isspace() for letter in shown), 0
        for letter in shown:
            if letter.isspace():
                letters.append((" ", start, end))
                continue
            step = (end - start) / count
            last = end if place + 1 == count else start + step * (place + 1)
            letters.append((letter, start + step * place, last))
            place += 1
    word: list[tuple[str, float, float]] = []
    for letter in [*letters, (" ", 0.0, 0.0)]:
        if letter[0] != " ":
            word.append(letter)
        elif word:
            yield TimedWord("".join(one[0] for one in word), word[0][1], word[-1][2])
            word = []


def _of_json(text: str) -> tuple[list[TimedWord], int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadExample(f"the subtitles begin as JSON, and are none: {error}", "undecodable") from error
    segments = found.get("segments") if isinstance(found, dict) else None
    if isinstance(segments, list):
        parts = [part.get("words") if isinstance(part, dict) else None for part in segments]
        entries = [entry for part in parts if isinstance(part, list) for entry in part]
        skipped = sum(not isinstance(part, list) for part in parts)
        if segments and skipped == len(segments):
            raise BadExample(
                f'the subtitles\' segments have no "words", but {_keys(segments)}: let Whisper write them '
                "(word_timestamps=True)",
                "undecodable",
            )
    elif isinstance(found, list):
        entries, skipped = found, 0
    else:
        raise BadExample(
            f'the subtitles are JSON with {_keys([found])}: give a list of {{"word", "start", "end"}}, or Whisper\'s '
            '{"segments": [{"words": [...]}]}',
            "undecodable",
        )
    if entries and not any(isinstance(entry, dict) and {"word", "text"} & set(entry) for entry in entries):
        raise BadExample(f'the subtitles\' words have no "word" or "text", but {_keys(entries)}', "undecodable")
    words: list[TimedWord] = []
    for entry in entries:
        timed = _timed(entry)
        words.extend(timed)
        skipped += not timed
    return words, skipped


def _timed(entry: Any) -> list[TimedWord]:
    """The words of an entry; none where it is broken."""
    if not isinstance(entry, dict):
        return []
    text, start, end = entry.get("word", entry.get("text")), entry.get("start"), entry.get("end")
    if isinstance(start, bool) or isinstance(end, bool) or not isinstance(text, str):
        return []
    if isinstance(start, int | float) and isinstance(end, int | float) and 0 <= start <= end < _LATEST:
        return [*_divided([(text, float(start), float(end))])]
    return []


def _keys(found: Sequence[Any]) -> str:
    keys = sorted({str(key) for one in found if isinstance(one, dict) for key in one})
    return f"the keys {', '.join(keys[:20])}" if keys else "no keys"
