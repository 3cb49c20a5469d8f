"""Prepares videos: plans the shards, has them written, and puts the index beside them when all are there."""

import contextlib
import fcntl
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.prepare.listing import ListedVideo, listed_videos
from mmjax.data.prepare.outcome import COUNTS, added_counts
from mmjax.data.prepare.plan import begin_plan, shards_of
from mmjax.data.prepare.preparing_progress import PreparingProgress
from mmjax.data.prepare.processes import ShardWorkers
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.segment_folder import FORMAT, LEFT_OUT, PREPARED, SHARDS, VIDEOS, outcome_file
from mmjax.errors import UserError
from mmjax.runtime.files import json_text, output

_NAMED = 5  # left-out videos that the summary names


def prepare_videos(place: str, out: str | Path, settings: PrepareSettings, workers: int) -> None:
    """Cuts the videos of a folder, or of a table, into segments, which `Segments(out)` reads.

    The result has the same bytes for any number of workers. What was stopped goes on with the shards that aren't done.
    A file that can't be decoded, or a part of it, is left out, counted, and named in `left_out.jsonl`.

    Raises:
        UserError: there are no videos, PyAV isn't there, or `out` holds something else, segments by other settings or
            of other videos, or is written to by another process.
        ShardWorkerError: a process died.
        OSError: the disk is full, or can't be written to. What is done is kept.
    """
    if workers < 1:
        raise UserError(f"workers={workers}: there is at least 1")
    _check_decoder()
    folder = output.local(out, "the folder")
    videos = listed_videos(place, settings.language)
    if not videos:
        raise UserError(f"{place} has no videos")
    shards = shards_of(videos)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        begin_plan(folder, settings, shards)
        (folder / SHARDS).mkdir(exist_ok=True)
        for inside in (folder, folder / SHARDS):
            output.sweep(inside)
        todo = [(number, shard) for number, shard in enumerate(shards) if not outcome_file(folder, number).exists()]
        if todo:
            _write(folder, settings, shards, todo, min(workers, len(todo)))
        _finish(folder, settings, shards, videos)
    _summarise(folder)


def _check_decoder() -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UserError("decoding videos needs PyAV: pip install 'mmjax[video]'") from error


def _write(
    folder: Path,
    settings: PrepareSettings,
    shards: Sequence[Sequence[ListedVideo]],
    todo: list[tuple[int, list[ListedVideo]]],
    workers: int,
) -> None:
    wanted = [video for _, shard in todo for video in shard]
    done = sum(map(len, shards)) - len(wanted)
    if done:
        print(f"{folder}: {len(shards) - len(todo)} of {len(shards)} shards are there already", file=sys.stderr)
    size = sum(max(video.size, 0) for video in wanted)
    started = contextlib.closing(ShardWorkers(workers, folder, settings))
    with started as processes, PreparingProgress(len(wanted), size, done) as progress:
        for seconds, read in processes.write(todo):
            progress.advance(seconds, read)


def _finish(
    folder: Path, settings: PrepareSettings, shards: Sequence[Sequence[ListedVideo]], videos: Sequence[ListedVideo]
) -> None:
    """Puts the outcomes of all shards together; `prepared.json`, which says that all is there, comes last."""
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    seconds = 0.0
    each, lines, left_out = [], [], []
    for number in range(len(shards)):
        outcome = json_text.read(outcome_file(folder, number))
        each.append({"records": outcome["records"], "digest": outcome["digest"]})
        for line in outcome["videos"]:
            counts, seconds = added_counts(counts, line), seconds + line["seconds"]
            left_out += line.pop("left_out")
            lines.append(line)
    output.write(folder / VIDEOS, _lines(lines))
    output.write(folder / LEFT_OUT, _lines(left_out))
    splits = Counter(line["split"] or "no split" for line in lines if line["segments"])
    facts = {
        "format": FORMAT,
        "settings": settings.written(),
        "columns": list(dict.fromkeys(name for video in videos for name in video.columns)),
        "videos": len(lines),
        "videos_left_out": sum(not line["segments"] for line in lines),
        "seconds": seconds,
        **counts,
        "splits": dict(sorted(splits.items())),
        "left_out": dict(sorted(Counter(f"{one['part']}: {one['kind']}" for one in left_out).items())),
        "shards": each,
    }
    output.write(folder / PREPARED, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def _summarise(folder: Path) -> None:
    facts = json_text.read(folder / PREPARED)
    whole = facts["videos"] - facts["videos_left_out"]
    print(
        f"{folder}: {facts['segments']:,} segments of {whole:,} videos ({facts['seconds'] / 3_600:,.2f} h), with "
        f"{facts['frames']:,} frames; {facts['sounds']:,} segments have a sound; {facts['words']:,} words, and "
        f"{facts['words_outside']:,} lie in no segment"
    )
    if not facts["left_out"]:
        return
    told = ", ".join(f"{name} ({count:,})" for name, count in facts["left_out"].items())
    print(f"left out: {facts['videos_left_out']:,} videos; by part and reason {told}; each in {folder / LEFT_OUT}:")
    with (folder / LEFT_OUT).open(encoding="utf-8") as file:
        for text, _ in zip(file, range(_NAMED), strict=False):
            one = json.loads(text)
            at = "" if one["start"] is None else f" from {one['start']:g} to {one['end']:g} s"
            print(f"  {one['video']}: its {one['part']}{at}: {one['reason']}")


def _lines(found: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system frees when this process ends, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(f"{folder} is being written to by another process: wait until it has ended") from error
        except OSError:  # a disk without locks
            pass
        yield
