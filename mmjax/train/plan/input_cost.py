"""Measures how fast a host's cores make batches: the experiment's own chains, on made-up pictures and sounds."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmjax.data.chains import Chains, Row, chain_specs
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms.contract import RecordTransform, Transform

CAPTION = 64  # bytes
LONG_ENOUGH = 0.5  # seconds of timing


@dataclass(frozen=True)
class Reading:
    """The cost of reading an example. seconds: of one core, for one example. bytes: of its stored form. of: a
    description of the timed examples.
    """

    seconds: float
    bytes: int
    of: str


def reading(
    transforms: Mapping[str, Sequence[Transform]], record_transforms: Sequence[RecordTransform] = ()
) -> Reading:
    """Times the chains of a mixture on one core of this machine, and the record transforms before them, on made-up
    examples (`Input.made_up`).

    Captions are not timed: they take microseconds. Neither are record transforms that fail on a made-up record, which
    `of` mentions.
    """
    specs = chain_specs(transforms)
    timed = {modality: made for modality, spec in specs.items() if (made := spec.kind.made_up()) is not None}
    whole = RecordTransforms(record_transforms, tuple(timed))
    examples = {modality: made for modality, made in timed.items() if modality not in _added(whole, timed)}
    captions = [modality for modality, spec in specs.items() if spec.kind.words]
    record: dict[str, Any] = {"id": "made up", **dict.fromkeys(captions, "a made-up caption")}
    record |= {modality: value for modality, (value, _) in examples.items()}
    size = sum(len(value) for value, _ in examples.values()) + CAPTION * bool(captions)
    if not examples:
        return Reading(0.0, size, "captions alone")
    chains, rng = Chains({modality: tuple(transforms[modality]) for modality in timed}), np.random.default_rng(0)

    def row() -> Row:
        return chains.row(whole(record, lambda name: rng), lambda modality: rng)

    try:
        found = row()  # the first call imports modules
        enough = all(found[f"{modality}_valid"] for modality in timed)
    except Exception:  # the user's own code may expect another record
        if not record_transforms:
            raise
        enough = False
    if not enough and record_transforms:
        plain = reading(transforms)
        return replace(plain, of=f"{plain.of}, without the record transforms")
    assert enough, found.keys()
    done, began = 0, time.thread_time()
    while (taken := time.thread_time() - began) < LONG_ENOUGH:
        row()
        done += 1
    return Reading(taken / done, size, " and ".join(words for _, words in examples.values()))


def _added(whole: RecordTransforms, inputs: Iterable[str]) -> set[str]:
    """Those of the inputs that record transforms make from others, which a source need not have."""
    names = list(inputs)
    return {name for name in names if name in whole.columns([other for other in names if other != name])}
