"""The files of a folder of prepared segments, and what its index says.

prepared.json    settings, counts, and each shard's number of records and digest; written last
plan.json        settings, and which videos each shard has; written first
shards/00000.array_record, shards/00000.json   segments of some videos; what became of them, when they are whole
videos.jsonl     a line a video: its id, split, shard and segments
left_out.jsonl   a line for all that could not be prepared
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.errors import UserError
from mmjax.runtime.files import json_text

PREPARED, PLAN, VIDEOS, LEFT_OUT, SHARDS = "prepared.json", "plan.json", "videos.jsonl", "left_out.jsonl", "shards"
FORMAT = 1  # of the folder and its records


class PreparedVideo(NamedTuple):
    """A video in the index. first: its first record in the shard. segments: the number of its records. runs: (place,
    count) of records that follow each other in the video without a gap, are all of the full length, and all have a
    sound or all none; the place counts from the video's first record.
    """

    id: str
    split: str | None
    shard: int
    first: int
    segments: int
    runs: tuple[tuple[int, int], ...]


def shard_file(folder: Path, shard: int) -> Path:
    """The file with a shard's records."""
    return folder / SHARDS / f"{shard:05}.array_record"


def outcome_file(folder: Path, shard: int) -> Path:
    """The file that says what became of a shard's videos: it is there when the shard's records are."""
    return folder / SHARDS / f"{shard:05}.json"


def prepared_facts(folder: Path) -> dict[str, Any]:
    """The content of `prepared.json`.

    Raises UserError where the folder isn't there, isn't one of segments, isn't finished, or is of another format.
    """
    try:
        found = json_text.read(folder / PREPARED)
    except OSError as error:
        if (folder / PLAN).is_file():
            planned = len(json_text.read(folder / PLAN)["shards"])
            done = len(list((folder / SHARDS).glob("*.json")))
            raise UserError(
                f"{folder} isn't finished: {done} of {planned} shards are there. The command that began it, `mmjax "
                f"prepare videos ... --out {folder}`, goes on with the others"
            ) from error
        raise UserError(f"{folder} holds no prepared segments: `mmjax prepare videos FOLDER` makes them") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        made = found.get("format") if isinstance(found, dict) else None
        raise UserError(f"{folder / PREPARED} is of the format {made!r}, and {FORMAT} is read here: prepare it anew")
    return found


def prepared_videos(folder: Path) -> list[PreparedVideo]:
    """The videos of a finished folder that have segments, in order. Raises UserError where the index is broken."""
    found = []
    try:
        for line in (folder / VIDEOS).read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            told["runs"] = tuple((place, count) for place, count in told["runs"])
            if told["segments"]:
                found.append(PreparedVideo(**{name: told[name] for name in PreparedVideo._fields}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / VIDEOS} can't be read: {error}") from error
    return found
