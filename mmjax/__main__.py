"""The command line: `mmjax train`, `evaluate`, `checkpoints`, `plan`, `show`, `prepare`."""

import argparse
import dis
import errno
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from mmjax import __version__
from mmjax.errors import PassingError, UserError, nearest

PACKAGE = str(Path(__file__).parent)
# Disks: full, over quota, read-only, not permitted, a file where a folder is needed or the other way round.
NOT_OURS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)

DESCRIPTION = "Pretrain encoders of images, text and audio into one embedding space."
EPILOG = """\
a first run, on the demo data, which builds itself:
  mmjax train experiments/quickstart.py --workdir runs/quickstart

`mmjax COMMAND --help` has examples of each command. An experiment is a function in a file, FILE.py:NAME; without
:NAME it is the file's first. Any value in it can be set from the command line, PATH=VALUE; `mmjax show` prints the
paths.
"""
TRAIN = """\
examples:
  mmjax train experiments/quickstart.py --workdir runs/quickstart
  mmjax train experiments/clip.py:tiny --workdir runs/wide towers.image.width=96 batch_size=128 seed=1
  mmjax train experiments/clip.py --workdir runs/clip mesh.fsdp=8
  mmjax train experiments/clip.py:tiny --workdir runs/profile --profile 10:15     # open the trace with XProf

The same command on the same workdir goes on where the run stopped (Ctrl-C saves first). A workdir that belongs to
another experiment is refused, with the differences, unless --fork says that the run goes on as the new one. A
checkpoint that was damaged since it was saved is set aside, and the one before is used (--strict stops instead).
With --supervise 5 a small parent process starts it again when it dies, or hangs for want of data, five times at most.
"""
EVALUATE = """\
examples:
  mmjax evaluate runs/quickstart
  mmjax evaluate runs/quickstart --split test --json test.json
  mmjax evaluate runs/quickstart --step 500 --evaluators retrieval
"""
SHOW = """\
examples:
  mmjax show experiments/clip.py                                    # as a tree, every default included
  mmjax show experiments/clip.py:tiny towers.image.depth=6          # with overrides
  mmjax show experiments/clip.py:tiny runs/clip_tiny                # where the two differ
  mmjax show runs/clip_tiny experiments/clip.py:tiny batch_size=64  # overrides are of the last one named
"""
PLAN = """\
examples:
  mmjax plan experiments/siglip.py --topology v5e:16x16
  mmjax plan experiments/siglip.py --topology v5e:16x16 --slices 2 batch_size=65536
  mmjax plan experiments/clip.py:vit_l14 --topology v5e:8x8,v5e:8x16,v5e:16x16 --picture scaling.png --json plan.json
  mmjax plan experiments/clip.py:tiny --topology cpu:8                       # this machine; needs no TPU compiler

The train step is compiled for a pod that need not be there (pip install "jax[tpu]"), about a minute for each topology.
Bytes and collectives are the compiler's. The time of a step is a roofline's: products at the chip's peak, after them
all else at the speed of its memory, the network beside both. It is a guide to compare by, not a promise.
"""
CHECKPOINTS = """\
examples:
  mmjax checkpoints runs/quickstart

Of each checkpoint its step, when it was saved, its size, the loss of that step, the first metric of each evaluation,
and whether it is whole: every byte is read, and compared with what was written.
"""
PREPARE = """\
examples:
  mmjax prepare spoken_emoji
  mmjax prepare spoken_emoji/multilingual --data-dir /data/tensorflow_datasets
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command line; returns the exit code: 0; 2 where what was asked for can't be had; 1 after a fault that
    need not come again."""
    argv = sys.argv[1:] if argv is None else argv
    parser, commands = parsers()
    if not argv:
        parser.print_help()
        return 0
    if argv[0] not in commands:
        if not argv[0].startswith("-"):
            parser.error(f"there is no command {argv[0]!r}{nearest(argv[0], commands) or '; see mmjax --help'}")
        parser.parse_args(argv)
        return 0
    command, run = commands[argv[0]]
    arguments = command.parse_intermixed_args(argv[1:])  # overrides may stand before, between and after options
    try:
        if getattr(arguments, "supervise", None) is not None:
            return run_supervised(argv, arguments.supervise)
        run(arguments)
    except KeyboardInterrupt:
        return 130  # as the shell says it of a program that ended by SIGINT
    except PassingError as error:
        print(f"error: {error}", file=sys.stderr)
        for reader in multiprocessing.active_children():
            reader.kill()  # one that hangs would be waited for
        return 1
    except Exception as error:
        if not meant_for_user(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def meant_for_user(error: BaseException) -> bool:
    """Whether an error explains itself: a `UserError`, one that a `raise` statement of mmjax's own code raised, or a
    disk that refuses.

    What jax or numpy raise below our code, or a failing lookup within it, is a fault, and keeps its traceback.
    """
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in NOT_OURS):
        return True
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or isinstance(error, (AssertionError, NotImplementedError)):
        return False
    code = last.tb_frame.f_code
    raised = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and code.co_filename.startswith(PACKAGE)


Command = tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], None]]


def parsers() -> tuple[argparse.ArgumentParser, dict[str, Command]]:
    """The parser of `mmjax`, and that of each command with what it runs."""
    layout = argparse.RawDescriptionHelpFormatter
    main_parser = argparse.ArgumentParser("mmjax", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout)
    main_parser.add_argument("--version", action="version", version=f"mmjax {__version__}")
    add = main_parser.add_subparsers(title="commands", metavar="COMMAND").add_parser

    train = add("train", help="train an experiment, or go on with it", epilog=TRAIN, formatter_class=layout)
    train.add_argument("experiment", metavar="FILE[:NAME]", help="an experiment, or a workdir's to go on with it")
    train.add_argument("overrides", metavar="PATH=VALUE", nargs="*", help="a value to set, towers.image.depth=6")
    train.add_argument("--workdir", metavar="DIR", required=True, help="where checkpoints, metrics and logs go")
    train.add_argument("--fork", action="store_true", help="go on in the workdir of a different experiment")
    train.add_argument("--strict", action="store_true", help="stop where the latest checkpoint is damaged")
    train.add_argument("--supervise", metavar="N", type=int, help="start it again when it dies, at most N times")
    train.add_argument("--replay", metavar="STEP", type=int, help="take one step again, and say all about it")
    train.add_argument("--profile", metavar="FROM:TO", type=steps, help="write a trace of these steps for XProf")
    train.add_argument("--wandb", metavar="PROJECT", help="mirror the metrics there (pip install mmjax[wandb])")

    evaluate = add("evaluate", help="judge a checkpoint", epilog=EVALUATE, formatter_class=layout)
    evaluate.add_argument("workdir", metavar="WORKDIR", help="the workdir of a run")
    evaluate.add_argument("--split", help="train, validation or test (default: what each evaluator says)")
    evaluate.add_argument("--step", type=int, help="which checkpoint (default: the latest)")
    evaluate.add_argument("--evaluators", metavar="NAME", nargs="+", help="only these of the experiment's")
    evaluate.add_argument("--json", metavar="FILE", help="write the numbers to a file")

    show = add("show", help="print an experiment, or where two differ", epilog=SHOW, formatter_class=layout)
    show.add_argument("experiments", metavar="EXPERIMENT", nargs="+", help="FILE[:NAME], WORKDIR, or PATH=VALUE")

    checkpoints = add("checkpoints", help="list a run's checkpoints", epilog=CHECKPOINTS, formatter_class=layout)
    checkpoints.add_argument("workdir", metavar="WORKDIR", help="the workdir of a run")

    plan = add("plan", help="whether it fits on a pod, and how fast it is", epilog=PLAN, formatter_class=layout)
    plan.add_argument("experiment", metavar="FILE[:NAME]", help="an experiment, or a workdir's")
    plan.add_argument("overrides", metavar="PATH=VALUE", nargs="*", help="a value to set, microbatches=4")
    plan.add_argument("--topology", metavar="NAME", required=True, help="v5e:16x16, or several: v5e:8x8,v5e:16x16")
    plan.add_argument("--slices", metavar="N", type=int, default=1, help="of that topology each (default: 1)")
    plan.add_argument("--json", metavar="FILE", help="write the numbers to a file")
    plan.add_argument("--picture", metavar="FILE", help="draw memory and speed as a PNG")
    plan.add_argument("--no-remedies", action="store_true", help="where it doesn't fit, don't try what would")

    prepare = add("prepare", help="build a dataset", epilog=PREPARE, formatter_class=layout)
    prepare.add_argument("dataset", metavar="DATASET", help="a TFDS name, name or name/config")
    prepare.add_argument("--data-dir", metavar="DIR", help="default: $TFDS_DATA_DIR, or ~/tensorflow_datasets")

    return main_parser, {
        "train": (train, run_train),
        "evaluate": (evaluate, run_evaluate),
        "checkpoints": (checkpoints, run_checkpoints),
        "plan": (plan, run_plan),
        "show": (show, run_show),
        "prepare": (prepare, run_prepare),
    }


def steps(text: str) -> tuple[int, int]:
    """`10:15` as (10, 15)."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} isn't FROM:TO, two step numbers such as 10:15")
    return int(first), int(last)


# The imports stand in the functions: jax takes seconds, and `--help` none.


def run_train(arguments: argparse.Namespace) -> None:
    from mmjax.experiment import experiment_name, load_experiment
    from mmjax.replay import replay
    from mmjax.train import train

    config = load_experiment(arguments.experiment, arguments.overrides)
    name = experiment_name(arguments.experiment)
    if arguments.replay is not None:
        replay(config, arguments.workdir, arguments.replay)
        return
    train(
        config,
        arguments.workdir,
        name=name,
        fork=arguments.fork,
        strict=arguments.strict,
        profile=arguments.profile,
        wandb=arguments.wandb,
    )


def run_supervised(argv: list[str], restarts: int) -> int:
    """The same command line without --supervise, in a process of its own."""
    from mmjax.supervise import supervise

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--supervise")
    return supervise([sys.executable, "-m", "mmjax", *own.parse_known_args(argv)[1]], restarts)


def run_evaluate(arguments: argparse.Namespace) -> None:
    from mmjax.evaluate import evaluate_workdir

    evaluate_workdir(
        arguments.workdir,
        split=arguments.split,
        step=arguments.step,
        evaluators=arguments.evaluators,
        json_path=arguments.json,
    )


def run_checkpoints(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from mmjax.listing import listing

    Console(highlight=False).print(listing(Path(arguments.workdir)))


def run_plan(arguments: argparse.Namespace) -> None:
    import jax

    names = arguments.topology.split(",")
    devices = max((int(name[4:]) for name in names if name.startswith("cpu:") and name[4:].isdecimal()), default=1)
    jax.config.update("jax_platforms", "cpu")  # a TPU or GPU that is there stays free for others
    jax.config.update("jax_num_cpu_devices", max(1, devices))

    from mmjax.experiment import experiment_name, load_experiment
    from mmjax.plan import plan_topologies

    plan_topologies(
        load_experiment(arguments.experiment, arguments.overrides),
        names,
        slices=arguments.slices,
        name=experiment_name(arguments.experiment),
        remedies=not arguments.no_remedies,
        json_path=arguments.json,
        picture=arguments.picture,
    )


def run_show(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from mmjax import show
    from mmjax.experiment import build, diff, experiment_name, load_experiment

    sources = [argument for argument in arguments.experiments if "=" not in argument]
    overrides = [argument for argument in arguments.experiments if "=" in argument]
    if not 1 <= len(sources) <= 2:
        raise UserError(f"mmjax show takes one experiment, or two to compare, not {len(sources)}: {', '.join(sources)}")
    names = [experiment_name(source) for source in sources]
    configs = [load_experiment(source) for source in sources[:-1]] + [load_experiment(sources[-1], overrides)]
    console = Console(highlight=False)
    if len(sources) == 1:
        console.print(show.tree(configs[0], names[0]))
        console.print(show.parameters(build(configs[0])))
    else:
        console.print(show.differences(diff(*configs), *sources))


def run_prepare(arguments: argparse.Namespace) -> None:
    from mmjax.data.datasets.prepare import prepare

    prepare(arguments.dataset, arguments.data_dir)


if __name__ == "__main__":
    sys.exit(main())
