"""`mmjax export`: write a model in the layout of mmjax or of another project."""

import argparse
from pathlib import Path

from mmjax.cli import add_code
from mmjax.errors import UserError
from mmjax.interop.projects import PROJECTS, layouts

HELP = "write a model in mmjax's layout, or another project's"
EPILOG = """\
examples:
  mmjax export runs/quickstart quickstart                                 # a folder: experiment, numbers, tokenizer
  mmjax export runs/quickstart pair --towers image text                   # leaves the audio tower behind
  mmjax export runs/clip --to hf clip_hf --inexact                        # transformers opens it
  mmjax export runs/clip --to open_clip clip_open_clip --inexact --step 5000 --license cc-by-4.0
  mmjax export hf:google/siglip-base-patch16-224 --to bv siglip.npz       # big_vision opens it

The optimiser's state stays behind, and the moving average of the parameters is taken where there is one. What was
written is read back, and compared with the model bit by bit, before it is called done; texts go through the other
project's tokenizer, where it is installed. A README.md beside it says what it is, how it is loaded, and its figures.

Another project computes the same on the same pixels and ids, or the model is refused, with all that is in the way.
What happens to pictures and texts before must be the same too; --inexact takes what is nearest, and lists what differs.

preprocessing that goes out exactly:
  pictures            Decode(), ResizeShorter(n), CenterCrop(n), or Decode(), Resize(n)
  texts               Lowercase() or Canonicalize(), and a Tokenize
  to open_clip        Decode(background=None) and CenterCrop(n, middle="even"); CleanText() before the rest
RandomResizedCrop, which crops before it resizes, takes --inexact. `mmjax.load` and transformers' own pipeline
("zero-shot-image-classification", of --to hf) open what was written.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("source", metavar="SOURCE", help="a workdir, or whatever else mmjax.load takes")
    parser.add_argument("out", metavar="OUT", help="a folder that isn't there yet; of big_vision a file, OUT.npz")
    parser.add_argument("--to", choices=layouts(), default="mmjax", help="whose layout (default: mmjax)")
    parser.add_argument("--towers", metavar="NAME", nargs="+", help="only these, with the objectives of theirs alone")
    parser.add_argument("--step", type=int, help="which checkpoint of a workdir (default: the latest)")
    add_code(parser)
    parser.add_argument("--without", choices=("tokenizer",), help="leave out what the layout can't hold")
    parser.add_argument(
        "--inexact",
        action="store_true",
        help="take the nearest preprocessing of pictures and texts, and list what differs",
    )
    parser.add_argument("--license", metavar="NAME", help="what the card says: apache-2.0, say (default: none chosen)")
    parser.add_argument("--half", action="store_true", help="store numbers in 16 bits, half the size, rounded")
    parser.add_argument("--no-ema", action="store_true", help="the parameters themselves, not their moving average")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.interop.export import export

    project = PROJECTS.get(arguments.to)
    if project is not None and project.suffix and not arguments.out.endswith(project.suffix):
        raise UserError(
            f"{project.title}'s layout is a file: {arguments.out}{project.suffix}, say, not {arguments.out}"
        )
    export(
        arguments.source,
        Path(arguments.out),
        arguments.to,
        step=arguments.step,
        code=arguments.code,
        ema=not arguments.no_ema,
        towers=arguments.towers,
        exact=not arguments.inexact,
        half=arguments.half,
        license=arguments.license,
        tokenizers=arguments.without != "tokenizer",
    )
