"""A folder of videos with their subtitles beside them, as a source."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmjax.data.paths import File
from mmjax.data.sources.contract import Source
from mmjax.data.sources.folder import FolderRecords
from mmjax.data.sources.splits import WHOLE, by_hash
from mmjax.data.transforms.video_input import VideoInput
from mmjax.errors import UserError

SUBTITLES = (".vtt", ".srt", ".json")  # the first that there is


@dataclass(frozen=True)
class VideoFolder(Source):
    """The videos in a folder and those within it; hidden ones are left out.

    A record has `id`, the path within the folder; `video`, the file; `words`, the file of subtitles, or of words and
    their times, beside it: of the same name with another ending (`a.vtt`, `a.srt`, `a.json`), with the language before
    that or without (`a.en.vtt`); and `text`, what a file `a.txt` says. Where no video has one, the column is lacking.
    Only names are read when it is opened. A hash of the id says which split a video is in, by `shares`; "all" is every
    one. Videos of one name in several folders are different ones; a table (`Folder`) groups and labels them otherwise.
    """

    folder: str
    language: str = "en"
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.9, "validation": 0.05, "test": 0.05})

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        """Opens a split. Raises `SplitNotFoundError` where it is empty; UserError where there is no such folder, or no
        video in it.
        """
        del data_dir  # it has a path of its own
        root = Path(os.path.expanduser(self.folder))
        if not root.is_dir():
            raise UserError(f"VideoFolder({self.folder!r}): there is no such folder")
        found = self._found(root)
        ids = list(found["id"])
        rows = range(len(ids))
        if split != WHOLE:
            rows = by_hash(self.folder, ids, ([id] for id in ids), split, {}, self.shares)
        there = {name: [cells[row] for row in rows] for name, cells in found.items() if any(cells)}
        media = tuple(name for name in ("video", "words") if name in there)
        return FolderRecords(there, os.fspath(root), media=media)

    def places(self) -> dict[str, str]:
        """The folder."""
        return {"folder": self.folder}

    def _found(self, root: Path) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"video": [], "words": [], "text": [], "id": []}
        others = 0
        for inside, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            beside = set(names)
            for name in sorted(names):
                stem, ending = os.path.splitext(name)
                if name.startswith(".") or ending.lower() not in VideoInput.endings:
                    others += not name.startswith(".")
                    continue
                path = os.path.join(inside, name)
                columns["video"].append(File(path))
                columns["id"].append(os.path.relpath(path, root).replace(os.sep, "/"))
                said = (f"{stem}{middle}{end}" for end in SUBTITLES for middle in ("", f".{self.language}"))
                words = next((other for other in said if other in beside), None)
                columns["words"].append(None if words is None else File(os.path.join(inside, words)))
                columns["text"].append(_text(os.path.join(inside, f"{stem}.txt")) if f"{stem}.txt" in beside else None)
        if not columns["id"]:
            raise UserError(
                f"VideoFolder({self.folder!r}): none of its {others} files has an ending of videos, "
                f"{' '.join(VideoInput.endings)}"
            )
        return columns


def _text(path: str) -> str | None:
    return Path(path).read_bytes().decode("utf-8", "replace").strip() or None
