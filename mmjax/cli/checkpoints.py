"""`mmjax checkpoints`: list a run's checkpoints."""

import argparse
from pathlib import Path

HELP = "list a run's checkpoints"
EPILOG = """\
examples:
  mmjax checkpoints runs/quickstart

Of each checkpoint its step, when it was saved, its size, the loss of that step, the first score of each evaluation, and
whether it is whole: every byte is read, and compared with what was written. Below stand the scores' names, of how many
they are, what they would be at random, and what is wrong where a checkpoint isn't whole.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("workdir", metavar="WORKDIR", help="the workdir of a run")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from rich.console import Console

    from mmjax.train.checkpoint_table import checkpoint_listing

    Console(highlight=False).print(checkpoint_listing(Path(arguments.workdir)))
