"""`mmjax chat`: a conversation with a model, in the terminal."""

import argparse

from mmjax.cli import add_code
from mmjax.cli.embed import positive

HELP = "talk with a model, about pictures and sounds too"
EPILOG = """\
examples:
  mmjax chat runs/dialogue
  mmjax chat runs/dialogue --image cat.png --temperature 0.7
  echo "what is this?" | mmjax chat runs/dialogue --image cat.png

A line is a turn, and Ctrl-D or Ctrl-C ends the conversation. Pictures and sounds are shown with the first turn; a line
"/image FILE what is this?" shows one with a later turn, and "/undo" takes the last exchange back. What goes into a pipe
is the answers alone, a line each.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", metavar="MODEL", help="a workdir, a folder of a model, or a name (as mmjax.load)")
    parser.add_argument("--image", metavar="FILE", action="append", default=[], help="shown with the first turn")
    parser.add_argument("--audio", metavar="FILE", action="append", default=[], help="played with the first turn")
    parser.add_argument("--system", metavar="TEXT", help="what the system says first")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=256, help="of an answer (default: 256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of drawn words (default: 0, the likeliest)")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest words of so much probability")
    parser.add_argument("--seed", type=int, default=0, help="of drawn words (default: 0)")
    parser.add_argument("--objective", metavar="NAME", help="which writes (default: the only one)")
    parser.add_argument("--step", type=int, help="which checkpoint of a workdir (default: the latest)")
    add_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.inference.writing.terminal import converse

    converse(
        arguments.model,
        shown={"image": arguments.image, "audio": arguments.audio},
        system=arguments.system,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        objective=arguments.objective,
        step=arguments.step,
        code=arguments.code,
    )
