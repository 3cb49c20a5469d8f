"""Reports skipped steps with their examples, when they stop a run."""

import json
from pathlib import Path

from mmjax.data.pipeline import Prepared, examples
from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.runtime import hosts
from mmjax.runtime.files import output

FILE = "bad_steps.json"


class BadStepsError(UserError):
    """Too many updates in a row were skipped, so the run stops."""


def bad_steps(
    workdir: Path, data: Prepared, experiment: Experiment, last: int, in_a_row: int, saved: int | None
) -> BadStepsError:
    """The exception to raise when the `in_a_row` steps up to `last` were bad; writes their examples into the workdir.

    saved: the last step with a checkpoint. Of several hosts the first one writes.
    """
    first = last - in_a_row + 1
    if hosts.leads():
        size, seed = experiment.batch_size, experiment.seed
        told = [
            {"step": step, "examples": examples(data, batch_size=size, seed=seed, step=step - 1)}
            for step in range(first, last + 1)
        ]
        output.write(workdir / FILE, json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    good = f"the last checkpoint is that of step {saved}" if saved is not None else "nothing was saved so far"
    return BadStepsError(
        f"the updates of {in_a_row} steps in a row, {first} to {last}, were skipped, since their loss or gradient was "
        f"not finite, or a spike; most_bad_steps={experiment.most_bad_steps} allows no more. The parameters are still "
        f"those of step {first - 1}, and {good}. {workdir / FILE} has the steps' examples. To look at the first:\n"
        f"  mmjax train {workdir} --workdir {workdir} --replay {first}"
    )
