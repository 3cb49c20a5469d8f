"""Tokens a second that a text decoder writes, beside Hugging Face's, and what a longer memory costs.

python -m tests.benchmarks.generate --json experiments/records/generate.json

A decoder of GPT-2's small size (Radford et al. 2019) with random parameters, greedy, without an end: each side writes
as many words. All sides take turns in one process, round after round; ratios are of neighbours, and the middle one
counts. `loop`: all words by one call of the compiled program; `steps`: a call, and a look at its words, for each.
`transformers`: `GPT2LMHeadModel.generate` with its cache, by as many threads as by default, and by one: that is faster
where others use the machine too, for its threads wait for each other. The ratio is to the faster of both. `memory`: one
step with a memory of so many slots, all but a few of them read, and what it reads: parameters and memory.
"""

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from mmjax.evaluate.writing.writer import Writer
from mmjax.models import DecoderBlocks, TextDecoder
from tests.benchmarks.machine import machine
from tests.benchmarks.step_sides import allow_any_torchvision

VOCAB, WIDTH, DEPTH, HEADS, LENGTH = 50_257, 768, 12, 12, 1_024  # GPT-2 small
PROMPT, WORDS, ROUNDS = 16, 128, 7
GOAL = 1.2  # of transformers
MEMORIES = (64, 128, 256, 512, 1_024, 2_048)
STEPS = 8  # of a round, for each memory


def writer_of(length: int) -> Writer:
    """A decoder with parameters as good as any."""
    blocks = DecoderBlocks(width=WIDTH, depth=DEPTH, heads=HEADS, activation="gelu_tanh", norm_eps=1e-5)
    decoder = TextDecoder(vocab=VOCAB, length=length, blocks=blocks)
    shapes = jax.eval_shape(lambda: meta.unbox(decoder.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: (0.02 * rng.standard_normal(x.shape)).astype(x.dtype), shapes["params"])
    return Writer(decoder, params)


def other(batch: int, threads: int | None = None) -> Callable[[], Any]:
    """The same by transformers. threads: of torch; None: as many as by default."""
    import torch  # pyright: ignore[reportMissingImports]

    allow_any_torchvision()
    import transformers  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    usual = torch.get_num_threads()
    ids = torch.from_numpy(prompts(batch))

    def run() -> Any:
        torch.set_num_threads(threads or usual)
        with torch.inference_mode():
            return model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=WORDS,
                min_new_tokens=WORDS,
                pad_token_id=0,
            )

    assert run().shape == (batch, PROMPT + WORDS)
    return run


def prompts(batch: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCAB, (batch, PROMPT))


def loop(writer: Writer, batch: int) -> np.ndarray:
    texts, _, given = writer.begin(writer.read(prompts(batch).tolist(), most=WORDS))
    return np.asarray(writer.advance(writer.params, texts, given, WORDS)[0].ids)[:, :WORDS]


def steps(writer: Writer, batch: int) -> np.ndarray:
    texts, news, given = writer.begin(writer.read(prompts(batch).tolist(), most=WORDS))
    words = [np.asarray(news.ids)]
    for count in range(2, WORDS + 1):
        texts, news = writer.advance(writer.params, texts, given, count)
        words.append(np.asarray(news.ids))
    return np.stack(words, axis=1)


def beside(writer: Writer, batch: int, rounds: int) -> dict[str, Any]:
    """The sides' tokens a second, and their ratios to transformers'."""
    sides: dict[str, Callable[[], Any]] = {
        "loop": lambda: loop(writer, batch),
        "steps": lambda: steps(writer, batch),
        "transformers": other(batch),
        "transformers, one thread": other(batch, 1),
    }
    np.testing.assert_array_equal(sides["loop"](), sides["steps"]())
    times: list[dict[str, float]] = []
    for _ in range(rounds):
        times.append({})
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            times[-1][name] = time.perf_counter() - start
    rates = {name: batch * WORDS / statistics.median(each[name] for each in times) for name in sides}
    theirs = [min(each["transformers"], each["transformers, one thread"]) for each in times]
    ratios = {
        name: statistics.median(best / each[name] for best, each in zip(theirs, times, strict=True))
        for name in ("loop", "steps")
    }
    return {
        "tokens_a_second": {name: round(rate, 1) for name, rate in rates.items()},
        "of_transformers": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "rounds": [{name: round(seconds, 2) for name, seconds in each.items()} for each in times],
    }


def memories(rounds: int) -> list[dict[str, Any]]:
    """The time of a step for each number of slots, and how it grows with what is read."""
    writer = writer_of(max(MEMORIES))
    held = sum(x.nbytes for x in jax.tree.leaves(writer.params)) - writer.params["position"].nbytes
    running = {}
    for slots in MEMORIES:
        words = slots - 2 * STEPS * (rounds + 1) if slots > 1_000 else slots // 4
        read = writer.read([[1] * words], most=slots - words)
        texts, _, given = writer.begin(read)
        running[slots] = texts, given, 1
    times: dict[int, list[float]] = {slots: [] for slots in MEMORIES}
    for _ in range(rounds + 1):
        for slots, (texts, given, count) in running.items():
            start = time.perf_counter()
            count += 1 if slots < 256 else STEPS
            texts, news = writer.advance(writer.params, texts, given, count)
            jax.block_until_ready(news)
            times[slots].append((time.perf_counter() - start) / (1 if slots < 256 else STEPS))
            running[slots] = texts, given, count
    found = []
    for slots in MEMORIES:
        memory = 2 * DEPTH * WIDTH * slots * 4
        seconds = statistics.median(times[slots][1:])
        found.append(
            {"slots": slots, "milliseconds": round(1e3 * seconds, 2), "megabytes": round((held + memory) / 1e6)}
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="default: 1 8")
    parser.add_argument("--no-memories", action="store_true", help="leave the memories out")
    arguments = parser.parse_args()
    writer = writer_of(LENGTH)
    record = {
        "command": "python -m tests.benchmarks.generate " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch", "transformers")},
        "prompt": PROMPT,
        "words": WORDS,
        "rounds": arguments.rounds,
        "goal": GOAL,
        "batches": {batch: beside(writer, batch, arguments.rounds) for batch in arguments.batches},
    }
    del writer
    if not arguments.no_memories:
        record["memory"] = memories(arguments.rounds)
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
