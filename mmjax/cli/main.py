"""The command line: `mmjax train`, `evaluate`, `embed`, `caption`, `chat`, `export`, `import`, `plan`, `show` ..."""

import argparse
import errno
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from mmjax import __version__
from mmjax.cli import (
    caption,
    chat,
    checkpoints,
    cluster,
    demo,
    embed,
    evaluate,
    export,
    import_,
    plan,
    prepare,
    show,
    train,
)
from mmjax.errors import PassingError, UserError, nearest
from mmjax.runtime import huge_pages

# The order of `mmjax --help`.
COMMANDS = (train, evaluate, embed, caption, chat, cluster, demo, checkpoints, export, import_, plan, show, prepare)
COMPUTE = ("train", "evaluate", "embed", "caption", "chat", "cluster", "demo")
# Errors of disks: full, over quota, read-only, not permitted, a file where a folder is needed or the other way round.
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


def program() -> int:
    """The program `mmjax`: `main`, with huge pages of memory for what computes."""
    if sys.argv[1:2] and sys.argv[1] in COMPUTE:
        huge_pages.restart()
    return main()


def main(argv: list[str] | None = None) -> int:
    """Runs one command line and returns the exit code: 0; 2 after an error that would come again (a wrong setting,
    missing data, a full disk); 1 after a fault that need not come again.
    """
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
    command, module = commands[argv[0]]
    arguments = command.parse_intermixed_args(argv[1:])  # overrides may stand before, between and after options
    arguments.argv = argv
    try:
        return module.run(arguments) or 0
    except KeyboardInterrupt:
        return 130  # a shell's code for a program that ended by SIGINT
    except PassingError as error:
        print(f"error: {error}", file=sys.stderr)
        for reader in multiprocessing.active_children():
            reader.kill()  # a process that hangs would be waited for
        return 1
    except Exception as error:
        if not meant_for_user(error):
            raise
        print(f"error: {explained(error, arguments)}", file=sys.stderr)
        return 2


def meant_for_user(error: BaseException) -> bool:
    """True if an error explains itself: a `UserError`, or a disk that refuses. Anything else is a fault, and keeps its
    traceback.
    """
    return isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in NOT_OURS)


def explained(error: BaseException, arguments: argparse.Namespace) -> str:
    """The message of an error; for a full disk with the place and the free space, which the system's own
    message lacks.
    """
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return str(error)
    workdir = getattr(arguments, "workdir", None)
    named = str(error.filename or workdir or getattr(arguments, "out", None) or tempfile.gettempdir())
    place = Path(named).absolute()
    free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
    after = "" if workdir is None else f"; what was saved in {workdir} is whole, and the same command then goes on"
    return f"{os.strerror(error.errno)}: {named!r} ({free / 1e6:,.1f} MB are free there): make space{after}"


def parsers() -> tuple[argparse.ArgumentParser, dict[str, tuple[argparse.ArgumentParser, ModuleType]]]:
    """The parser of `mmjax`, and that of each command with its module."""
    layout = argparse.RawDescriptionHelpFormatter
    main_parser = argparse.ArgumentParser("mmjax", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout)
    main_parser.add_argument("--version", action="version", version=f"mmjax {__version__}")
    subparsers = main_parser.add_subparsers(title="commands", metavar="COMMAND")
    commands = {}
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].rstrip("_")  # `import` is a keyword of Python
        parser = subparsers.add_parser(name, help=command.HELP, epilog=command.EPILOG, formatter_class=layout)
        command.add(parser)
        commands[name] = parser, command
    return main_parser, commands
