"""The time of a conversation's turns: with the memory kept between them, with all turns read anew, and alone.

python -m tests.benchmarks.chat --json experiments/records/chat.json

A decoder of GPT-2's small size (Radford et al. 2019) with random parameters, greedy, without an end. Each turn says so
many words and is answered by as many. `kept`: by `ReadSoFar`, which reads the turn's own tokens; `anew`: the whole
conversation is read at each turn; `alone`: the turn stands in a conversation of its own. All sides take turns in one
process, round after round, and the middle one counts. The goal is for the third turn: `kept` in at most 1.1 times the
time of `alone`.
"""

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.evaluate.writing.read_so_far import ReadSoFar, Token
from mmjax.evaluate.writing.writer import Read, Writer
from tests.benchmarks.generate import LENGTH, VOCAB, writer_of
from tests.benchmarks.machine import machine

SAID, WORDS, TURNS, ROUNDS = 48, 32, 6, 5
GOAL = 1.1  # of a turn that stands alone


def answered(writer: Writer, read: Read) -> tuple[Any, list[int]]:
    """The texts, and the answer's words."""
    texts, _, given = writer.begin(read)
    texts, _ = writer.advance(writer.params, texts, given, WORDS)
    return texts, np.asarray(texts.ids)[0, :WORDS].tolist()


def conversation(writer: Writer, said: Sequence[Sequence[int]], kept: bool) -> tuple[list[float], list[list[int]]]:
    """The seconds of each turn, and the answers."""
    so_far, text, times, answers = ReadSoFar(writer), [], [], []
    for words in said:
        start = time.perf_counter()
        text += words
        tokens = [Token(id) for id in text]
        read = so_far.read(tokens, {}, None, most=WORDS) if kept else writer.read([text], most=WORDS)
        texts, answer = answered(writer, read)
        if kept:
            so_far.written(texts, tokens, answer)
        times.append(time.perf_counter() - start)
        answers.append(answer)
        text += answer
    return times, answers


def alone(writer: Writer, said: Sequence[Sequence[int]]) -> list[float]:
    """The seconds of each turn that stands in a conversation of its own."""
    return [conversation(writer, [words], kept=True)[0][0] for words in said]


def measured(rounds: int, turns: int, length: int = LENGTH) -> dict[str, Any]:
    """The seconds of each turn by each side, and their ratios."""
    writer = writer_of(length)
    said = np.random.default_rng(1).integers(0, VOCAB, (turns, SAID)).tolist()
    times: dict[str, list[list[float]]] = {"kept": [], "anew": [], "alone": []}
    for _ in range(rounds + 1):  # the first one compiles
        kept, one = conversation(writer, said, kept=True)
        anew, other = conversation(writer, said, kept=False)
        if one[0] != other[0]:
            raise AssertionError("the first answers differ")
        for name, found in (("kept", kept), ("anew", anew), ("alone", alone(writer, said))):
            times[name].append(found)
    middle = {name: [statistics.median(turn) for turn in zip(*some[1:], strict=True)] for name, some in times.items()}
    ratios = {
        name: [round(a / b, 3) for a, b in zip(middle["kept"], middle[name], strict=True)] for name in ("anew", "alone")
    }
    return {
        "seconds": {name: [round(one, 3) for one in some] for name, some in middle.items()},
        "kept_of": ratios,
        "third_turn_of_alone": ratios["alone"][2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=TURNS, help="default: %(default)s, 3 at least")
    arguments = parser.parse_args()
    record = {
        "command": "python -m tests.benchmarks.chat " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax",)},
        "said": SAID,
        "words": WORDS,
        "rounds": arguments.rounds,
        "goal": GOAL,
        **measured(arguments.rounds, arguments.turns),
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
