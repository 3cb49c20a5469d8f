"""The videos that are to be prepared: those of a folder, or of a table, with their words, splits and columns."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.paths import File, on_disk
from mmjax.data.sources.folder import Folder, FolderRecords
from mmjax.data.sources.segments import OWN_COLUMNS
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError, hashed_split
from mmjax.data.sources.tables import is_table, read_table
from mmjax.data.sources.video_folder import VideoFolder
from mmjax.errors import UserError

SPLITS = ("train", "validation", "test")


class ListedVideo(NamedTuple):
    """A video that is to be prepared. words: a file of subtitles, or its bytes. size: of its file, in bytes; -1 where
    there is none. columns: what else is known of the whole video.
    """

    id: str
    video: File
    words: File | bytes | None
    split: str | None
    size: int
    columns: dict[str, Any]


def listed_videos(place: str, language: str) -> list[ListedVideo]:
    """The videos of a folder, as `VideoFolder` finds them, or of the column `video` of a table, as `Folder` does.

    A table's column `words` holds files of subtitles; a column `split` says the split of a row, as elsewhere.

    Raises:
        UserError: there is no such folder or table, it has no video, two have one id, a video isn't a file but bytes,
            or a column has the name of one that prepared segments have themselves.
    """
    if Path(os.path.expanduser(place)).is_dir():
        source = VideoFolder(place, language)
        records = source.open(WHOLE)
        splits = {record["id"]: hashed_split(record["id"], source.shares) for record in _each(records)}
    elif is_table(place):
        known = read_table(Path(os.path.expanduser(place))).columns
        table = Folder(place, files=("words",) if "words" in known else ())
        records = table.open(WHOLE)
        splits = _splits(table)
    else:
        raise UserError(f"{place} is neither a folder of videos nor a table (.csv, .tsv or .parquet) of them")
    _check_columns(place, records)
    found: list[ListedVideo] = []
    for record in _each(records):
        video = record["video"]
        if video is None:
            continue
        if not isinstance(video, File):
            raise UserError(f"{place}: the video {record['id']!r} is no path: only files of their own are prepared")
        others = {name: record[name] for name in records.columns if name not in ("id", "video", "words")}
        size = _size(video)
        found.append(ListedVideo(record["id"], video, record.get("words"), splits.get(record["id"]), size, others))
    if twice := len(found) - len({video.id for video in found}):
        raise UserError(
            f"{place}: {twice} of its rows have an id that another row has: give each video a row, and an id"
        )
    return found


def _each(records: FolderRecords) -> Any:
    return (records[row] for row in range(len(records)))


def _splits(table: Folder) -> dict[str, str]:
    found = {}
    for split in SPLITS:
        try:
            found |= {record["id"]: split for record in _each(table.open(split))}
        except SplitNotFoundError:
            continue
    return found


def _check_columns(place: str, records: FolderRecords) -> None:
    if "video" not in records.columns:
        raise UserError(f"{place} has no column video, but {', '.join(records.columns)}")
    known = {*OWN_COLUMNS} - {"id", "video", "words"}
    if taken := [name for name in records.columns if name in known or name == "image"]:
        raise UserError(
            f"{place}: prepared segments can't have its column {taken[0]!r}, "
            + ("which holds pictures" if taken[0] == "image" else "whose name is one of theirs: rename it")
        )


def _size(file: File) -> int:
    path = on_disk(file.path)
    return -1 if path is None else os.path.getsize(path)
