"""The chains of transforms of all modalities together: from a record to the arrays of one row of a batch."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.early_crop import cropped_early
from mmjax.data.transforms.values import Cut, Labelled, Masked
from mmjax.errors import UserError

Row = dict[str, np.ndarray]
Transforms = Mapping[str, Sequence[Transform]]

_COMPLAINTS = 5  # bad examples that are logged with their reason; more would make the log unreadable

log = logging.getLogger(__name__)


class Chains:
    """The chains of all modalities, ready to run: every tokenizer has its model.

    `specs` says what each chain gives. Raises UserError where a chain doesn't end in arrays of one shape, or a
    tokenizer lacks its model.
    """

    def __init__(self, transforms: Transforms, tokenizers: Mapping[str, Tokenizer] | None = None):
        self.specs = chain_specs(transforms)
        self.tokenizers: dict[str, Tokenizer] = dict(tokenizers or {})
        self.transforms = {modality: self._bound(modality, chain) for modality, chain in transforms.items()}
        self._fixed = {
            modality: next((i for i, transform in enumerate(chain) if transform.random), len(chain))
            for modality, chain in self.transforms.items()
        }
        self._zeros = {name: np.zeros(shape, dtype) for name, (shape, dtype) in row_spec(self.specs).items()}
        self._complaints = 0

    def _bound(self, modality: str, chain: Sequence[Transform]) -> tuple[Transform, ...]:
        bound = []
        for transform in chain:
            if isinstance(wanted := transform.vocabulary(), TokenizerSpec):
                if modality not in self.tokenizers:
                    raise UserError(f"the chain of {modality!r} has no model for {wanted}")
                transform = transform.with_tokenizer(wanted.check(self.tokenizers[modality]))
            bound.append(transform)
        return cropped_early(bound)

    @property
    def texts(self) -> str | None:
        """The modality whose chain processes strings that belong to no example, such as prompts: `text`, or else the
        first modality of words; None where there is none.
        """
        words = [modality for modality, spec in self.specs.items() if spec.kind.words]
        return "text" if "text" in words else next(iter(words), None)  # the usual name is the main one's

    def begin(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record's id, and the value of every modality before its chain's first random transform."""
        begun: dict[str, Any] = {"id": record["id"]}
        for modality, chain in self.transforms.items():
            begun[modality] = self._run(record, modality, chain[: self._fixed[modality]], None)
        return begun

    def row(self, record: Mapping[str, Any], rng: Callable[[str], Rng], begun: bool = False) -> Row:
        """The arrays of an example by the batch's names, with `<modality>_valid`, without `index` and `id`.

        `rng(modality)` is the random generator of a modality; `begun` says that `record` comes from `begin`.
        A missing or bad value is zeros with valid False; a bad one has its kind's code in `<modality>_bad`.
        """
        return self.row_and_cuts(record, rng, begun)[0]

    def row_and_cuts(
        self, record: Mapping[str, Any], rng: Callable[[str], Rng], begun: bool = False
    ) -> tuple[Row, tuple[str, ...]]:
        """The row as `row` gives it, and the modalities of which it holds only a part, since the whole is too long."""
        row, cuts = dict(self._zeros), []
        for modality, chain in self.transforms.items():
            rest = chain[self._fixed[modality] :] if begun else chain
            value = self._run(record, modality, rest, rng(modality))
            if isinstance(value, BadExample):
                row[f"{modality}_bad"] = np.asarray(value.code, np.uint8)
            elif value is not None:
                row |= self._arrays(modality, value)
                if isinstance(value.value if isinstance(value, Labelled) else value, Cut):
                    cuts.append(modality)
        return row, tuple(cuts)

    def length(self, record: Mapping[str, Any], modality: str, rng: Rng) -> int | None:
        """The whole length of a record's text or sound, in the chain's units, before anything is cut off.

        None where it is missing or bad (which isn't logged), or the chain gives no mask.
        """
        value = record.get(modality)
        try:
            value = None if isinstance(value, BadExample) else _after(self.transforms[modality], value, rng)
        except BadExample:
            return None
        value = value.value if isinstance(value, Labelled) else value
        if isinstance(value, Cut):
            return value.whole
        return int(value.mask.sum()) if isinstance(value, Masked) else None

    def _run(self, record: Mapping[str, Any], modality: str, chain: Sequence[Transform], rng: Rng) -> Any:
        """The value after these transforms; None where it is missing, a `BadExample` where it is bad."""
        value = record.get(modality)
        if isinstance(value, BadExample):  # since `begin`
            return value
        path = value.path if isinstance(value, File | Clip) else None
        try:
            return _after(chain, value, rng)
        except BadExample as reason:
            if path is not None and path not in str(reason):
                reason = BadExample(f"{path}: {reason}", reason.kind)
            if self._complaints < _COMPLAINTS:
                self._complaints += 1
                more = "; further ones are not named" if self._complaints == _COMPLAINTS else ""
                log.warning("the %s of %r is left out: %s%s", modality, record.get("id"), reason, more)
            return reason.with_traceback(None)  # the traceback keeps the picture in memory

    def _arrays(self, modality: str, value: Any) -> Row:
        spec = self.specs[modality]
        value, told = value if isinstance(value, Labelled) else (value, {})
        values, mask = value if isinstance(value, Masked) else (value, None)
        values, labels = np.asarray(values), {name: np.asarray(label) for name, label in told.items()}
        found = {(name, label.shape, label.dtype.name) for name, label in labels.items()}
        fits = values.shape == spec.shape and values.dtype == spec.dtype and (mask is not None) == spec.masked
        if not fits or found != set(spec.labels):
            raise UserError(
                f"the chain of {modality!r} ended in {values.dtype}{list(values.shape)}{_listed(labels)}, and says "
                f"that it ends in {spec.dtype}{list(spec.shape)}{_listed(label for label, *_ in spec.labels)}: the "
                "spec() of one of its transforms is wrong"
            )
        arrays = {modality: values, f"{modality}_valid": np.True_}
        arrays |= {f"{modality}_{name}": label for name, label in labels.items()}
        return arrays if mask is None else {**arrays, f"{modality}_mask": mask}

    def encode(self, **values: Sequence[Any]) -> Row:
        """A batch of given pictures, captions and sounds, as in evaluation: `encode(image=[...], text=[...])`.

        All lists have one length; a None in them is a missing value. Raises UserError for an unknown modality or
        lengths that differ.
        """
        if unknown := sorted(set(values) - set(self.transforms)):
            raise UserError(f"there is no chain for {', '.join(unknown)}, but for {', '.join(self.transforms)}")
        if len(lengths := {len(value) for value in values.values()}) != 1:
            raise UserError(f"encode() takes lists of one length, not of {sorted(lengths)}")
        records = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
        rows = [self.row({"id": str(index), **record}, evaluation) for index, record in enumerate(records)]
        wanted = row_spec({modality: self.specs[modality] for modality in values})
        return stack([{name: row[name] for name in wanted} | identity(i, "", i) for i, row in enumerate(rows)])

    def raw(self, record: Mapping[str, Any], column: str) -> Any:
        """A column as it is shown to people: the caption or recording that evaluation picks, a file's bytes."""
        value, chain = record.get(column), self.transforms.get(column, ())
        try:
            value = _stored(value, chain)
            for transform in chain[:1]:
                if value is not None and transform.picks:
                    value = transform(value, None)
            value = str(value) if isinstance(value, Document) else value
        except BadExample:
            return None
        return None if isinstance(value, BadExample) else value


def _after(chain: Sequence[Transform], value: Any, rng: Rng) -> Any:
    """The value after these transforms; None stays None. Raises `BadExample` where it is bad."""
    value = _stored(value, chain)
    for transform in chain if value is not None else ():
        # A document's sentences are cleaned by the transforms that clean the strings to be embedded.
        if isinstance(value, Document) and transform.vocabulary() is None:
            value = value.mapped(transform)
        else:
            value = transform(value, rng)
    return value


def _stored(value: Any, chain: Sequence[Transform]) -> Any:
    """The bytes of a file, or its path for a chain that reads parts of it; anything else as it is."""
    if not isinstance(value, File):
        return value
    return value.unread() if chain and chain[0].in_parts else value.read()


def captions(record: Mapping[str, Any], modality: str, chain: Sequence[Transform]) -> list[str]:
    """All captions of a record (of a document, the sentences) as they reach the chain's tokenizer; none of a
    bad one.
    """
    value = record.get(modality)
    values = [] if value is None or isinstance(value, BadExample) else [value]
    try:
        values = [part for value in values for part in (value.sentences if isinstance(value, Document) else [value])]
        for transform in chain:
            if transform.vocabulary() is not None:
                break
            values = [one for value in values for one in transform.every(value)]
    except BadExample:
        return []
    return [value for value in values if isinstance(value, str)]


def untrained(transforms: Transforms) -> dict[str, TokenizerSpec]:
    """The tokenizers that need a model, by modality."""
    return {
        modality: wanted
        for modality, chain in transforms.items()
        for transform in chain
        if isinstance(wanted := transform.vocabulary(), TokenizerSpec)
    }


def chain_specs(transforms: Transforms) -> dict[str, Spec]:
    """The spec of each modality's chain. Raises UserError where its shape varies from example to example."""
    specs = {}
    for modality, chain in transforms.items():
        spec = None
        for transform in chain:
            spec = transform.spec(spec)
        if spec is None or VARIES in spec.shape:
            last = type(chain[-1]).__name__ if chain else "nothing"
            raise UserError(
                f"the chain of {modality!r} ends in {last}, whose result has no fixed shape: end it in one that has, "
                f"such as Resize(size) for pictures, Tokenize(tokenizer, length) for captions, CropOrPad(samples) for "
                f"sounds"
            )
        specs[modality] = spec
    return specs


def row_spec(specs: Mapping[str, Spec]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and dtype of every array of a row except `index` and `id`."""
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    for modality, spec in specs.items():
        arrays[modality] = spec.shape, spec.dtype
        if spec.masked:
            arrays[f"{modality}_mask"] = spec.shape[:1], "bool"
        arrays |= {f"{modality}_{name}": (shape, dtype) for name, shape, dtype in spec.labels}
        arrays[f"{modality}_valid"] = (), "bool"
        arrays[f"{modality}_bad"] = (), "uint8"
    return arrays


def identity(place: int, source: str, id: str | int) -> Row:
    """`index`, the row in the global batch, and `id`, 64 bits that identify the example in every run."""
    digest = hashlib.blake2b(f"{source}\0{id}".encode(), digest_size=8).digest()
    return {"index": np.uint32(place), "id": np.frombuffer(digest, "<u4").astype(np.uint32)}  # type: ignore[dict-item]


def evaluation(modality: str) -> None:
    """The random generator of evaluation: None."""
    del modality


def _listed(labels: Iterable[str]) -> str:
    return "".join(f" with {label!r}" for label in sorted(labels))


def stack(rows: Sequence[Row]) -> Row:
    """Stacks rows into a batch."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
