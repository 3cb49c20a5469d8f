"""`mmjax prepare`: build a dataset."""

import argparse

HELP = "build a dataset"
EPILOG = """\
examples:
  mmjax prepare spoken_emoji
  mmjax prepare spoken_emoji/multilingual --data-dir /data/tensorflow_datasets
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a TFDS name, name or name/config")
    parser.add_argument("--data-dir", metavar="DIR", help="default: $TFDS_DATA_DIR, or ~/tensorflow_datasets")


def run(arguments: argparse.Namespace) -> None:
    from mmjax.data.datasets.prepare import prepare

    prepare(arguments.dataset, arguments.data_dir)
