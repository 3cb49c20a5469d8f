"""The plan of a prepared folder: which videos each shard has. It depends on the videos alone, not on the workers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.segment_folder import FORMAT, PLAN
from mmjax.errors import UserError
from mmjax.runtime.files import json_text, output

LEAST, MOST, COUNT = 2**20, 2**30, 1_024  # bytes of videos that a shard is made of, and about how many shards there are
MOST_VIDEOS = 1_000  # of a shard
_NAMED = 3


def shards_of(videos: Sequence[ListedVideo]) -> list[list[ListedVideo]]:
    """The videos of each shard, in order: so many that their files have a 1,024th of all bytes, but 1 MB to 1 GB."""
    goal = min(max(sum(max(video.size, 0) for video in videos) / COUNT, LEAST), MOST)
    found: list[list[ListedVideo]] = []
    size = goal
    for video in videos:
        if size >= goal or len(found[-1]) >= MOST_VIDEOS:
            found.append([])
            size = 0
        found[-1].append(video)
        size += max(video.size, 0)
    return found


def begin_plan(out: Path, settings: PrepareSettings, shards: Sequence[Sequence[ListedVideo]]) -> None:
    """Writes the plan, or checks that the one in the folder is the same.

    Raises:
        UserError: the folder holds anything else, or segments by other settings or of other videos; the message names
            the difference.
        OSError: the folder can't be written to.
    """
    plan = {
        "format": FORMAT,
        "settings": settings.written(),
        "shards": [[[video.id, video.size, video.split] for video in shard] for shard in shards],
    }
    if (out / PLAN).exists():
        before = json_text.read(out / PLAN)
        if before != plan:
            raise UserError(f"{out} was prepared otherwise: {_difference(before, plan)}. Give another --out")
        return
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"{out} isn't empty, and holds no prepared segments: give another --out")
    output.write(out / PLAN, json.dumps(plan, ensure_ascii=False) + "\n")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if before.get("format") != now["format"]:
        return f"in the format {before.get('format')!r}, which is {now['format']} now"
    old, new = before["settings"], now["settings"]
    if changed := [name for name in new if old.get(name) != new[name]]:
        return "with " + ", ".join(f"{name}={old.get(name)!r} (now {new[name]!r})" for name in changed)
    ids = [{id: (size, split) for shard in each["shards"] for id, size, split in shard} for each in (before, now)]
    told = {
        "are new": [id for id in ids[1] if id not in ids[0]],
        "are gone": [id for id in ids[0] if id not in ids[1]],
        "have another size or split": [id for id in ids[1] if id in ids[0] and ids[0][id] != ids[1][id]],
    }
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for what, names in told.items()
        if names
    ]
    return f"of its videos {' and '.join(parts) or 'the order is another'}"
