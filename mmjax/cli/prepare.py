"""`mmjax prepare`: build a dataset, or cut videos into segments."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmjax.cli.embed import positive
from mmjax.errors import UserError

HELP = "build a dataset, or cut videos into segments"
EPILOG = """\
examples:
  mmjax prepare spoken_emoji
  mmjax prepare spoken_emoji/multilingual --data-dir /data/tensorflow_datasets
  mmjax prepare videos lectures --out segments --seconds 5 --rate 1 --short-side 288 --workers 8
  mmjax prepare videos lectures.csv --out segments --sound-rate 22050

Training and evaluation build a dataset on first use; this builds it beforehand. spoken_emoji, asked_emoji,
described_emoji, emoji_stories, tagged_emoji, esc50 and stamps need no TensorFlow; the Debian package of stamps is
fetched by hand (experiments/README.md, "Demo data"). TFDS's own datasets whose builders need it take
pip install "mmjax[tf]"; reading them needs none.

`prepare videos` decodes once what training would decode in every epoch: a folder of videos, with their subtitles beside
them, or a table with a column `video`. Each becomes segments with frames (JPEG), sound (FLAC), and words with their
times; an experiment reads them by Segments("segments"). What was stopped goes on with the same command; a file that is
broken is left out and named in segments/left_out.jsonl.
"""
VIDEOS = "videos"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("dataset", metavar="DATASET", help="a TFDS name, name or name/config; or `videos`")
    parser.add_argument("videos", metavar="FOLDER", nargs="?", help="after `videos`: their folder, or a table of them")
    parser.add_argument("--data-dir", metavar="DIR", help="default: $TFDS_DATA_DIR, or ~/tensorflow_datasets")
    of_videos = parser.add_argument_group("options of `prepare videos`")
    of_videos.add_argument("--out", metavar="DIR", help="where the segments go")
    of_videos.add_argument("--seconds", type=float, help="of a segment (default: 5)")
    of_videos.add_argument("--rate", type=float, help="frames a second (default: 1)")
    of_videos.add_argument(
        "--short-side", type=positive, metavar="PIXELS", help="to which larger frames are scaled (default: 288)"
    )
    of_videos.add_argument("--quality", type=positive, help="of JPEG, up to 95 (default: 90)")
    of_videos.add_argument("--sound-rate", type=positive, metavar="HZ", help="of the sound (default: 16000)")
    of_videos.add_argument("--language", help="of subtitles beside a video, a.en.vtt (default: en)")
    of_videos.add_argument("--workers", type=positive, help="processes (default: one for each core)")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    names = ("seconds", "rate", "short_side", "quality", "sound_rate", "language")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.dataset == VIDEOS:
        _run_videos(arguments, given)
        return
    if arguments.videos is not None or arguments.out is not None or arguments.workers is not None or given:
        raise UserError(
            f"mmjax prepare {arguments.dataset}: a second name, --out and the options of segments are those of `mmjax "
            "prepare videos FOLDER --out DIR`"
        )
    if Path(arguments.dataset).expanduser().exists() and _are_videos(arguments.dataset):
        raise UserError(f"{arguments.dataset} is no dataset: mmjax prepare videos {arguments.dataset} --out DIR")
    from mmjax.data.datasets.prepare import prepare_dataset

    prepare_dataset(arguments.dataset, arguments.data_dir)


def _are_videos(name: str) -> bool:
    """Whether an existing path was meant: a dataset may have the name of a folder that lies here by chance."""
    return os.sep in name or Path(name).suffix != ""


def _run_videos(arguments: argparse.Namespace, given: dict[str, Any]) -> None:
    from mmjax.data.prepare.prepare_videos import prepare_videos
    from mmjax.data.prepare.settings import PrepareSettings

    if arguments.videos is None or arguments.out is None:
        raise UserError("mmjax prepare videos FOLDER --out DIR: give the videos' folder (or a table), and --out")
    if arguments.data_dir is not None:
        raise UserError("--data-dir is where datasets are built; segments go to --out")
    workers = arguments.workers or os.cpu_count() or 1
    prepare_videos(arguments.videos, arguments.out, PrepareSettings(**given), workers)
