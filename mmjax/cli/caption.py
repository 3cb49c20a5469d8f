"""`mmjax caption`: captions of a folder's pictures, in a file."""

import argparse

from mmjax.cli import add_code
from mmjax.cli.embed import positive

HELP = "caption the pictures of a folder"
EPILOG = """\
examples:
  mmjax caption runs/captioner photos --out captions.jsonl
  mmjax caption runs/captioner photos --out captions.jsonl --beams 4 --max-new-tokens 30
  mmjax caption runs/captioner photos --out captions.jsonl --prompt "a photo of" --temperature 0.7 --top-p 0.9 --seed 1

Each picture of the folder, and of those within it, gets a line {"file": ..., "text": ...}. The same command completes
what was stopped; files that can't be read are named, counted, and tried again then.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", metavar="MODEL", help="a workdir, a folder of a model, or a name (as mmjax.load)")
    parser.add_argument("folder", metavar="FOLDER", help="with pictures in it, or in folders within it")
    parser.add_argument("--out", metavar="FILE.jsonl", required=True, help="where the captions go")
    parser.add_argument(
        "--prompt",
        default="",
        help="what each caption goes on from, or the question where the model reads one (default: nothing)",
    )
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=64, help="of a caption (default: 64)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of drawn words (default: 0, the likeliest)")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest words of so much probability")
    parser.add_argument("--beams", type=positive, help="search by so many beams instead")
    parser.add_argument("--seed", type=int, default=0, help="of drawn words (default: 0)")
    parser.add_argument("--objective", metavar="NAME", help="which writes (default: the only one)")
    parser.add_argument("--step", type=int, help="which checkpoint of a workdir (default: the latest)")
    add_code(parser)
    parser.add_argument("--batch-size", type=positive, default=64, help="pictures at a time (default: 64)")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.inference.writing.caption_folder import caption_folder

    caption_folder(
        arguments.model,
        arguments.folder,
        arguments.out,
        prompt=arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        beams=arguments.beams,
        seed=arguments.seed,
        objective=arguments.objective,
        step=arguments.step,
        code=arguments.code,
        batch_size=arguments.batch_size,
    )
