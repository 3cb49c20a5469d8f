"""Writes TensorBoard's event files by tensorboardX, without importing PyTorch, which tensorboardX does for functions
unused here.
"""

import sys
import time
from typing import Any

_torch = sys.modules.get("torch")
try:
    if _torch is None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails, as where it isn't installed
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.record_writer import directory_check
finally:
    if _torch is None:
        del sys.modules["torch"]

Event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
SessionLog = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["Event", "FileWriter", "SessionLog", "Summary"]


class FileWriter:
    """Writes events into a new file of a folder (which it creates), in the calling thread.

    tensorboardX's own writes in a thread: there a full disk ends in a traceback, and the next caller that adds to its
    queue waits for ever; and the queue is one between processes, with semaphores that outlive a kill.

    Every method raises OSError where the disk refuses.
    """

    def __init__(self, folder: str, filename_suffix: str = ""):
        directory_check(folder)
        self._events = EventsWriter(f"{folder}/events", filename_suffix)

    def add_event(self, event: Any, step: int | None = None) -> None:
        """Adds an event with the present time; step: None leaves the event's own."""
        event.wall_time = time.time()
        if step is not None:
            event.step = step
        self._events.write_event(event)

    def add_summary(self, summary: Any, step: int) -> None:
        """Adds the values of a step."""
        self.add_event(Event(summary=summary), step)

    def flush(self) -> None:
        """Writes all that was added to the file."""
        self._events.flush()

    def close(self) -> None:
        """Flushes, and closes the file."""
        self._events.close()
