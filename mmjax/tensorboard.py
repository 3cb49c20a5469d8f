"""tensorboardX's event files, without PyTorch: it imports that where it is installed, for what is never used here."""

import sys

_torch = sys.modules.get("torch")
try:
    if _torch is None:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails, as where it isn't installed
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.writer import FileWriter
finally:
    if _torch is None:
        del sys.modules["torch"]

Event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
SessionLog = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["Event", "FileWriter", "SessionLog", "Summary"]
