"""`mmjax train`: train an experiment, or go on with it."""

import argparse
import sys

from mmjax.cli import add_code
from mmjax.cli.metric_help import told_families
from mmjax.runtime.metric_families import TRAINING

HELP = "train an experiment, or go on with it"
EPILOG = f"""\
examples:
  mmjax train experiments/quickstart.py --workdir runs/quickstart
  mmjax train experiments/clip.py:tiny --workdir runs/wide towers.image.blocks.width=96 batch_size=128 seed=1
  mmjax train experiments/clip.py --workdir runs/clip mesh.fsdp=8
  mmjax train experiments/clip.py:tiny --workdir runs/profile --profile 10:15     # open the trace with XProf

The same command on the same workdir resumes where the run stopped (Ctrl-C saves first): the resumed run ends with the
same parameters, bit for bit, as one that was never stopped. A workdir that belongs to another experiment, or began with
other data, is refused, with the differences, unless --fork says that the run goes on as the new one. A checkpoint that
was damaged since it was saved is set aside, and the one before is used (--strict stops instead).
With --supervise 5 a small parent process starts it again when it dies, or hangs for want of data, five times at most.

a workdir holds all there is of a run:
  experiment.json     the experiment as it was built, overrides and defaults included; loading it runs no code
  checkpoints/STEP    parameters, optimiser state, step (Orbax)
  metrics.jsonl       a JSON object a line, explained below; tensorboard/ has the same
  bad_examples.jsonl  the records that could not be used, if there were any
  data.json           how many rows trained, and digests of them
  tokenizers/         the models that turn texts into ids
  gallery*.png ...    what evaluators drew

what the numbers in WORKDIR/metrics.jsonl are, a JSON object a line (TensorBoard shows those that say how healthy and
how fast the run is as health/... and speed/...; `mmjax evaluate --help` has those of an evaluation):
{told_families(TRAINING)}
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("experiment", metavar="FILE[:NAME]", help="an experiment, or a workdir's to go on with it")
    parser.add_argument(
        "overrides", metavar="PATH=VALUE", nargs="*", help="a value to set, towers.image.blocks.depth=6"
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="where checkpoints, metrics and logs go")
    add_code(parser)
    parser.add_argument("--fork", action="store_true", help="go on in the workdir of a different experiment or data")
    parser.add_argument("--strict", action="store_true", help="stop where the latest checkpoint is damaged")
    parser.add_argument("--supervise", metavar="N", type=int, help="start it again when it dies, at most N times")
    parser.add_argument("--replay", metavar="STEP", type=int, help="take one step again, and say all about it")
    parser.add_argument("--profile", metavar="FROM:TO", type=steps, help="write a trace of these steps for XProf")
    parser.add_argument("--wandb", metavar="PROJECT", help="mirror the metrics there (pip install mmjax[wandb])")


def run(arguments: argparse.Namespace) -> int | None:
    """Runs the command."""
    if arguments.supervise is not None:
        return supervised(arguments.argv, arguments.supervise)
    from mmjax.train.interruption import nothing_begun

    with nothing_begun():  # from here on, as the next imports take seconds
        return unsupervised(arguments)


def unsupervised(arguments: argparse.Namespace) -> None:
    """Trains, or replays a step, in this process."""
    from mmjax.experiment.confined import record_of
    from mmjax.experiment.load import experiment_name, load_experiment
    from mmjax.train.loop import train
    from mmjax.train.replay import replay

    config = load_experiment(arguments.experiment, arguments.overrides, arguments.code)
    name = experiment_name(arguments.experiment, arguments.code)
    given = record_of(arguments.experiment, arguments.overrides)
    if arguments.replay is not None:
        replay(config, arguments.workdir, arguments.replay, given=given)
        return
    train(
        config,
        arguments.workdir,
        name=name,
        fork=arguments.fork,
        strict=arguments.strict,
        profile=arguments.profile,
        wandb=arguments.wandb,
        given=given,
        code=arguments.code,
    )


def supervised(argv: list[str], restarts: int) -> int:
    """Runs the same command line without --supervise in a child process, and restarts it when it dies."""
    from mmjax.train.supervise import supervise

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--supervise")
    return supervise([sys.executable, "-m", "mmjax", *own.parse_known_args(argv)[1]], restarts)


def steps(text: str) -> tuple[int, int]:
    """Parses `10:15` into (10, 15), for argparse."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} isn't FROM:TO, two step numbers such as 10:15")
    return int(first), int(last)
