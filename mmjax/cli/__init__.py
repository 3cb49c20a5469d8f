"""The commands of `mmjax`, a file each: its HELP in a line, its EPILOG of examples, `add` (its options), and `run`.

A command imports its modules when it runs: jax takes seconds, and `--help` none.
"""

import argparse


def add_code(parser: argparse.ArgumentParser) -> None:
    """Adds the option `--code`, for every command that reads a record, which may name parts of one's own."""
    parser.add_argument(
        "--code",
        metavar="FILE.py",
        action="append",
        help="run this file for parts of one's own that a record names (may be given several times)",
    )
