"""A part of a video that isn't decoded yet: what a window is cut to, and what chains of frames and of sound read."""

from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample


@dataclass(frozen=True)
class Clip:
    """The seconds from `start` to `end` of a file; None: to its end.

    content: the file's bytes, or the path of a file on this machine, of which decoders read the part alone.
    sound: whether the file is one of sound without pictures.
    """

    content: bytes | str
    start: float = 0.0
    end: float | None = None
    sound: bool = False

    @classmethod
    def of(cls, value: Any) -> "Clip":
        """The value, or all of the file that it is. Raises BadExample for anything else."""
        clip = value if isinstance(value, cls) else cls(value)
        if not isinstance(clip.content, bytes | str):
            raise BadExample(f"a video is bytes of a file, or frames, not {type(value).__name__}", "undecodable")
        return clip

    @property
    def path(self) -> str | None:
        """The file's path, for messages; None where it is bytes."""
        return self.content if isinstance(self.content, str) else None

    def __repr__(self) -> str:
        """The bytes by their number."""
        content = self.path or f"{len(self.content):,} bytes"
        return f"Clip({content!r}, {self.start:g}, {'None' if self.end is None else f'{self.end:g}'})"
