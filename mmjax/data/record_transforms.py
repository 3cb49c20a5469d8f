"""The transforms of whole records together, as they run before the chains read their entries."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.sources.contents import read_once
from mmjax.data.transforms.contract import RecordTransform, Rng
from mmjax.errors import UserError

STREAM = "record transforms"  # of random numbers; the chains' streams are named by their inputs
_COMPLAINTS = 5  # as in the chains: examples that are logged with their reason

log = logging.getLogger(__name__)


class RecordTransforms:
    """Applies `transforms`, one after the other, before chains of these inputs.

    All of them draw from one stream of random numbers, which isn't that of any chain: whether there are any, and
    what they draw, changes no draw of a chain. An example that one of them finds bad is bad in every input.
    """

    def __init__(self, transforms: Sequence[RecordTransform], inputs: Sequence[str]):
        self.transforms, self.inputs = tuple(transforms), tuple(inputs)
        self._fixed = next((i for i, transform in enumerate(transforms) if transform.random), len(transforms))
        self._complaints = 0

    def __call__(self, record: Mapping[str, Any], rng: Callable[[str], Rng]) -> Mapping[str, Any]:
        """The record as the chains read it. `rng(name)` is the stream of that name, as in `Chains.row`."""
        return self._run(self.transforms, record, rng)

    @property
    def settled(self) -> bool:
        """True if no transform is random, so that `begin` does all."""
        return self._fixed == len(self.transforms)

    def begin(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record before the first random transform, to be cached; if there is one, files of the record have been
        read.
        """
        begun = self._run(self.transforms[: self._fixed], record, lambda name: None)
        return begun if self.settled else {name: read_once(value) for name, value in begun.items()}

    def finish(self, begun: Mapping[str, Any], rng: Callable[[str], Rng]) -> Mapping[str, Any]:
        """Completes the output of `begin` to that of `__call__`."""
        return self._run(self.transforms[self._fixed :], begun, rng)

    def columns(self, before: Sequence[str]) -> tuple[str, ...]:
        """The columns of a source's records after all transforms."""
        columns = tuple(before)
        for transform in self.transforms:
            columns = tuple(transform.columns(columns))
        return columns

    def _run(
        self, transforms: Sequence[RecordTransform], record: Mapping[str, Any], rng: Callable[[str], Rng]
    ) -> Mapping[str, Any]:
        if not transforms or any(isinstance(record.get(name), BadExample) for name in self.inputs):  # since `begin`
            return record
        stream, found = rng(STREAM), dict(record)
        try:
            for transform in transforms:
                made = transform(dict(found), stream)
                if not isinstance(made, Mapping):
                    raise UserError(f"{transform!r} gave {made!r:.40}: a record transform gives the record, a dict")
                found = dict(made)
        except BadExample as reason:
            if self._complaints < _COMPLAINTS:
                self._complaints += 1
                more = "; further ones are not named" if self._complaints == _COMPLAINTS else ""
                log.warning("all of %r is left out: %s%s", record.get("id"), reason, more)
            return {**record, **dict.fromkeys(self.inputs, reason.with_traceback(None))}
        return {**found, "id": record["id"]}  # the id stays that of the example
