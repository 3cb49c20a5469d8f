"""`mmjax show`: print an experiment, or where two differ."""

import argparse

from mmjax.cli import add_code
from mmjax.errors import UserError

HELP = "print an experiment, or where two differ"
EPILOG = """\
examples:
  mmjax show experiments/clip.py                                    # as a tree, every default included
  mmjax show experiments/clip.py:tiny towers.image.blocks.depth=6          # with overrides
  mmjax show experiments/clip.py:tiny runs/clip_tiny                # where the two differ
  mmjax show runs/clip_tiny experiments/clip.py:tiny batch_size=64  # overrides are of the last one named
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("experiments", metavar="EXPERIMENT", nargs="+", help="FILE[:NAME], WORKDIR, or PATH=VALUE")
    add_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from rich.console import Console

    from mmjax.experiment import own_parts, show
    from mmjax.experiment.diff import diff
    from mmjax.experiment.graph import build
    from mmjax.experiment.load import experiment_name, file_of, load_experiment, own_digests
    from mmjax.runtime.files import own_code

    sources = [argument for argument in arguments.experiments if "=" not in argument]
    overrides = [argument for argument in arguments.experiments if "=" in argument]
    if not 1 <= len(sources) <= 2:
        raise UserError(f"mmjax show takes one experiment, or two to compare, not {len(sources)}: {', '.join(sources)}")
    code = own_code.named([*(arguments.code or ()), *filter(None, (file_of(source)[0] for source in sources))])
    names = [experiment_name(source, code) for source in sources]
    configs = [load_experiment(source, overrides if source is sources[-1] else (), code) for source in sources]
    console = Console(highlight=False)
    if len(sources) == 1:
        console.print(show.tree(configs[0], names[0]))
        console.print(show.parameters(build(configs[0])))
    else:
        texts = own_parts.code_differences(*(own_digests(*each) for each in zip(sources, configs, strict=True)))
        console.print(show.told_differences([*diff(*configs), *texts], *sources))
