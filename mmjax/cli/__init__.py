"""The commands of `mmjax`, a file each: its HELP in a line, its EPILOG of examples, `add` (its options), and `run`.

What a command needs is imported when it runs: jax takes seconds, and `--help` none.
"""
