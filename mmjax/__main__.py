"""The command line, for Python's `-m`."""

import sys

from mmjax.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
