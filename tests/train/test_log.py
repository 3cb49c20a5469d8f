"""The log's own lines: what is not finite is said once, with its place."""

import io
import time
from pathlib import Path

import jax.numpy as jnp
from rich.console import Console

from mmjax.runtime import metrics
from mmjax.runtime.metrics import Metrics
from mmjax.train.goodput import Goodput
from mmjax.train.log import Log
from mmjax.train.progress import Progress


class Stream:
    waited = 0.0


def test_embeddings_that_are_not_finite_are_said_when_they_begin_with_their_tower(tmp_path: Path):
    screen = io.StringIO()
    shown = Progress(6, 0, Console(file=screen, width=100))
    clock = Goodput(time.perf_counter())
    with Metrics(tmp_path) as written, shown, Log(written, shown, Stream(), clock, 100, 16, last=6) as log:
        for step, bad in enumerate((0, 3, 3, 0, 1, 0), start=1):
            values = {"loss": 1.0, "pair/nonfinite/image": 0, "pair/nonfinite/text": bad}
            values |= {"clipped/audio": 0.25 if step == 6 else 0, "bad/image/empty": 0}
            log.step(step, {name: jnp.float32(value) for name, value in values.items()})
    said = [line for line in screen.getvalue().splitlines() if "not finite" in line]
    assert [line.partition(" are")[0] for line in said] == [
        "step 2: 3 of 16 embeddings of 'text' in objective 'pair'",
        "step 5: 1 of 16 embeddings of 'text' in objective 'pair'",
    ]
    assert [line["step"] for line in metrics.read(tmp_path)] == [1, 6]
    assert [line.get("clipped/audio") for line in metrics.read(tmp_path)] == [None, 0.25]


def test_a_run_has_learnt_from_nothing_until_a_loss_or_a_gradient_is_not_0(tmp_path: Path):
    def logged(first: int, *steps: tuple[float, float]) -> bool:
        shown = Progress(9, 0, Console(file=io.StringIO()))
        with (
            Metrics(tmp_path, step=first) as written,
            shown,
            Log(written, shown, Stream(), Goodput(time.perf_counter()), 1, 16, 9, written.nothing) as log,
        ):
            for step, (loss, norm) in enumerate(steps, start=first + 1):
                log.step(step, {"loss": jnp.float32(loss), "grad_norm": jnp.float32(norm)})
            log.flush()
            return log.nothing

    assert logged(0, (0, 0), (0, 0))
    assert logged(2, (0, 0))  # as the steps before it
    assert not logged(3, (0, 0.5), (0, 0))
    assert not logged(5, (0, 0))
    assert not logged(0, (float("nan"), 0))
    assert not logged(0, (1.5, 0))
    (tmp_path / "metrics.jsonl").unlink()
    assert not logged(3, (0, 0))  # nothing is known of what was before
