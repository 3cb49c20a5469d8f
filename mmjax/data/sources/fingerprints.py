"""Fingerprints of a split's records: equal as long as the records are those that a run began with."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.data.paths import File

Fingerprint = dict[str, Any]  # plain: numbers and strings


def of_columns(columns: Mapping[str, Iterable[Any]], root: str) -> Fingerprint:
    """A digest of each column's cells in their order.

    A file counts by its path within `root`, not by its content: reading all would take as long as an epoch.
    """
    found, within = {}, os.path.join(root, "")
    for name, cells in columns.items():
        digest = hashlib.blake2b(digest_size=16)
        for cell in cells:
            digest.update(json.dumps(_plain(cell, within)).encode() + b"\n")
        found[name] = digest.hexdigest()
    return found


def of_text(text: str) -> str:
    """The digest of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(cell: Any, within: str) -> Any:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, File):
        return {"path": cell.path.removeprefix(within)}
    if isinstance(cell, bytes):
        return {"bytes": hashlib.blake2b(cell, digest_size=16).hexdigest()}
    if isinstance(cell, list):
        return [_plain(item, within) for item in cell]
    return cell
