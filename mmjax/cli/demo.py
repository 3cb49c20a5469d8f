"""`mmjax demo`: a page to search pictures and sounds."""

import argparse

from mmjax.cli import add_code

HELP = "search pictures and sounds on a page in the browser"
EPILOG = """\
examples:
  mmjax demo runs/quickstart                                      # among the test data that the run names
  mmjax demo runs/quickstart --folder ~/Pictures
  mmjax demo hf:google/siglip-base-patch16-224 --folder ~/Pictures --port 8000

The page searches by typing, by a picture or by voice, as far as the model has the towers. Of a model that writes it has
tabs that caption a picture and that talk. It needs pip install
"mmjax[page]". It is served to this machine alone (127.0.0.1), and nothing is sent elsewhere but with --share. Whoever
has the link can search by what is typed or uploaded on the page, and by nothing else on this machine; pages of other
sites can upload nothing, and uploads are removed after ten minutes. The folder is only read; vectors are kept under
$XDG_CACHE_HOME/mmjax/demo (~/.cache/mmjax/demo), so that the next start embeds only what has changed. The page says
how much of a long text or sound the model takes in. Ctrl-C or SIGTERM ends it and removes what was uploaded.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", metavar="MODEL", help="a workdir, a folder of a model, or a name (as mmjax.load)")
    parser.add_argument(
        "--folder", metavar="FOLDER", help="of pictures and sounds (default: the test split of the model's own data)"
    )
    parser.add_argument("--step", type=int, help="which checkpoint of a workdir (default: the latest)")
    add_code(parser)
    parser.add_argument("--port", metavar="N", type=port, help="of the page (default: 7860, or the next that is free)")
    parser.add_argument(
        "--share", action="store_true", help="make a public link too: whoever has it can search, by gradio's servers"
    )


def port(text: str) -> int:
    """Parses a port's number, for argparse."""
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    print("starting: loading jax and gradio", flush=True)  # importing them takes seconds
    from mmjax.inference.demo.page import serve

    serve(
        arguments.model,
        arguments.folder,
        step=arguments.step,
        code=arguments.code,
        port=arguments.port,
        share=arguments.share,
    )
