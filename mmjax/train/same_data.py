"""Checks that a run goes on with the data that it began with, by the fingerprints in its workdir."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.pipeline import Prepared
from mmjax.data.sources.fingerprints import Fingerprint
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError
from mmjax.runtime import hosts
from mmjax.runtime.files import digests, json_text, output

FILE = "data.json"
SPLIT = "train"  # alone decides the batches


def check_data(data: Prepared, workdir: Path, *, begun: bool, fork: bool = False, keep: bool = True) -> None:
    """Keeps in `data.json` the fingerprint of each training source; compares it with the one there, if the run has
    begun.

    A batch is a function of the step and of the rows there are: with other rows a run would silently go on with other
    batches than its record implies. fork: go on with them knowingly; the old file stays as `data.json.old`.
    keep: False only compares. A run from before there was such a file gets one. Of several hosts the first one writes.

    Raises:
        UserError: the run began with other data, or not all hosts have the same.
    """
    mine = hosts.together(lambda: _identified(data))
    words = {"id": "ids, or their order", **{m: _called(m, spec.kind) for m, spec in data.chains.specs.items()}}
    if data.mixture.record_transforms:  # they may read columns without a chain
        columns = {column for records in data.open(SPLIT).values() for column in records.columns}
        words = {**{c: "captions" if c == "text" else f"values of {c!r}" for c in sorted(columns)}, **words}
    everyone = hosts.gathered(mine)
    for index, other in enumerate(everyone):
        if other != everyone[0]:
            raise UserError(
                f"host {index} reads other data than host 0: {'; '.join(_differences(everyone[0], other, words))}"
            )
    hosts.first(lambda: _compare_and_keep(mine, workdir / FILE, words, begun, fork, keep))


def _identified(data: Prepared) -> dict[str, Fingerprint]:
    """The fingerprints by source. They cover the columns that the chains read, or all where record transforms may read
    any.
    """
    found = {}
    for name, records in data.open(SPLIT).items():
        # Record transforms may read any column.
        read = tuple(records.columns if data.mixture.record_transforms else data.mixture.transforms)
        known = records.fingerprint(read)
        others = {key: value for key, value in known.items() if key not in read}
        columns = {key: known.get(key) for key in read} if "id" in known else {}
        found[name] = others | columns
    return found


def _called(modality: str, kind: type[Input]) -> str:
    """The name of a column's digest, in messages."""
    if kind.words:
        return "captions" if modality == "text" else f"texts of {modality!r}"
    return f"{kind.several or f'examples of {modality!r}'} (their paths or bytes)"


def _compare_and_keep(
    found: dict[str, Fingerprint], path: Path, words: Mapping[str, str], begun: bool, fork: bool, keep: bool
) -> None:
    before = _kept(path) if begun else None
    differences = _differences(before, found, words) if before is not None else []
    if differences and not fork:
        raise UserError(
            f"{path.parent} began with other data than is there now:\n"
            + "\n".join(f"  {line}" for line in differences)
            + "\nput it back, give another --workdir, or --fork to go on from its last checkpoint with what is now"
        )
    if not keep or before == found:
        return
    try:
        if differences:
            output.write(path.with_name(f"{FILE}.old"), path.read_bytes())
        output.write(path, json.dumps(digests.sealed({SPLIT: found}), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): give another --workdir") from error


def _kept(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        read = json_text.read(path)
        kept = read[SPLIT]
        if not all(isinstance(source, dict) for source in kept.values()) or not digests.unbroken(read):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, which says what data the run began with, can't be read: delete it, if the data is still the same"
        ) from error
    return kept


def _differences(before: dict[str, Any], now: dict[str, Any], words: Mapping[str, str]) -> list[str]:
    """A line for each source that has changed."""
    lines = []
    for name in dict.fromkeys((*before, *now)):
        if name not in before or name not in now:
            lines.append(f"{name}: {'is new' if name in now else 'is gone'}")
            continue
        told = []
        for key in dict.fromkeys((*before[name], *now[name])):
            old, new = before[name].get(key), now[name].get(key)
            if old == new:
                continue
            if old is None or new is None:
                told.append(f"{'no ' if old is None else ''}{key} there, {'no ' if new is None else ''}{key} here")
            elif key in words:
                told.append(f"other {words[key]}")
            else:
                told.append(f"{key} {_shown(old)} there, {_shown(new)} here")
        if told:
            lines.append(f"{name}: {', '.join(told)}")
    return lines


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
