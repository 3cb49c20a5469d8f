"""Reads one input that someone has at hand into a row of a batch: an array, a file's name, its bytes; one or several.

The chain does the work, as in evaluation; here stands what the data of a training run never is: a file name, several in
one array. What can't be used is an error that says which input it is; training would leave it out in silence.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from etils import epath
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.signatures import in_words
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.errors import UserError, nearest

Row = dict[str, np.ndarray]
Read = tuple[np.ndarray, np.ndarray | None]  # an array of the batch's, and its mask


class Input:
    """The inputs of one modality. What a chain ends in says which class reads them (`Spec.kind`): this one takes arrays
    as they are, for a modality that is neither pictures nor texts nor sounds, and one of your own may subclass it.

    one, several: what an example is called; "": by the modality's name.
    unit: what a mask's places are called.
    words: whether examples are words: they are shown as they are, and there is no file to be read.
    draws: whether `drawn` makes a picture of an example, to be looked at.
    plays: whether `played` makes a sound of it, to be listened to.
    endings: of the names of files that hold an example, by which a folder is searched for them.
    """

    one: ClassVar[str] = ""
    several: ClassVar[str] = ""
    unit: ClassVar[str] = "places"
    words: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    plays: ClassVar[bool] = False
    endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, modality: str, chain: Sequence[Any], spec: Any, upright: bool = True):
        """chain: its transforms, whose tokenizers have their models. spec: what the chain gives."""
        self.modality, self.spec = modality, spec
        self.chain = [step for transform in chain if (step := transform.by_hand(upright)) is not None]

    @classmethod
    def made_up(cls) -> tuple[Any, str] | None:
        """An example as it is stored, to time a chain with, and what it is in words; None where there is none."""
        return None

    @classmethod
    def drawn(cls, value: Any) -> np.ndarray:
        """An example as a picture, uint8 [H, W, 3], of what is stored or of what a batch holds.

        Raises `BadExample` where it can't be used.
        """
        raise NotImplementedError

    @classmethod
    def played(cls, value: Any, rate: int | None = None) -> tuple[np.ndarray, int]:
        """What is stored as a sound, and its samples in a second: int16 [T] at `rate`; where that is None at its own,
        int16 [T] or [T, channels]. Raises `BadExample` where it can't be used."""
        raise NotImplementedError

    @classmethod
    def measured(cls, length: int, rate: int | None) -> str:
        """A length, to name in a sentence on what would do."""
        return f"{length:,}"

    @classmethod
    def lost(cls, length: int, rate: int | None) -> str:
        """How the sentence ends that tells of examples longer than what the model gets: `length` of `unit`."""
        return f"than the model reads, and lose what comes after {length:,} {cls.unit}"

    @property
    def takes(self) -> str:
        """What an input may be, for messages."""
        return f"it takes an array {list(self.spec.shape)}, a file name, or bytes of a file"

    @property
    def alone(self) -> tuple[int, ...]:
        """How many axes an array has that is one input."""
        return (len(self.spec.shape),)

    def listed(self, value: Any) -> tuple[Iterable[Any], bool]:
        """The inputs one by one, and whether `value` is one alone.

        Raises:
            UserError: it is neither an input nor several.
        """
        value = as_array(value)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OUS":
            return self._arrays(value)
        if isinstance(value, str | bytes | os.PathLike | Image.Image) or self.is_one(value):
            return [value], True
        if isinstance(value, Mapping) or not isinstance(value, Iterable):
            raise UserError(f"{self.modality}={shortened(value)}: {self.takes}, or a list of those")
        return value, False

    def is_one(self, value: Any) -> bool:
        """Whether a value that is neither an array nor a file is one input, though it can be iterated over."""
        del value
        return False

    def _arrays(self, value: np.ndarray) -> tuple[Iterable[Any], bool]:
        """An array is one input or a batch of them, by its number of dimensions."""
        if value.ndim in self.alone:
            return [value], True
        if value.ndim == max(self.alone) + 1:
            return value, False
        raise UserError(f"{self.modality} is an array {list(value.shape)}; {self.takes}, or several of those")

    def row(self, value: Any, place: int | None = None) -> Row:
        """The arrays of one input, by the batch's names: `image`, or `text` and `text_mask`.

        place: its number among several, for messages.

        Raises:
            UserError: it can't be used; says which one it is.
        """
        value = as_array(value)
        named = os.path.basename(os.fspath(value)) if is_path(value) and not self.words else None
        if place is None:
            where = f"{self.modality} {named}" if named else f"the {self.modality}"
        else:
            where = f"{self.modality} {place} ({named})" if named else f"{self.modality} {place}"
        try:
            values, mask = self.read(value, where)
        except BadExample as reason:
            raise UserError(f"{where}: {reason}") from reason
        return {self.modality: values} if mask is None else {self.modality: values, f"{self.modality}_mask": mask}

    def read(self, value: Any, where: str) -> Read:
        """One input's array and mask. where: which input it is, for messages.

        Raises:
            BadExample: its chain can't use it. UserError: it is nothing that can be given.
        """
        values, mask = self.run(file_content(value, where) if is_path(value) else value)
        if values.shape != self.spec.shape:
            raise UserError(
                f"{where}: its chain makes {list(values.shape)} of it, and the model reads {list(self.spec.shape)}; "
                f"{self.takes}"
            )
        return values, mask

    def run(self, value: Any) -> Read:
        """What the chain makes of a value."""
        for transform in self.chain:
            value = transform(value, None)
        value = value.value if isinstance(value, Labelled) else value
        return (value.values, value.mask) if isinstance(value, Masked) else (np.asarray(value), None)


def file_content(value: str | os.PathLike[str], where: str) -> bytes:
    """The bytes of a file."""
    name = os.fspath(value)
    if name.startswith(("http://", "https://")):
        raise UserError(f"{where}: {name} lies on the web, and nothing is fetched: give a file, or its bytes")
    try:
        if "://" not in name:  # the most of them, without the 50 µs that epath takes for each
            with open(os.path.expanduser(name), "rb") as file:
                return file.read()
        return epath.Path(name).read_bytes()
    except FileNotFoundError:
        path = epath.Path(name).expanduser()
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{where}: there is no file {name}{nearest(path.name, beside)}") from None
    except OSError as error:
        raise UserError(f"{where}: {name} can't be read: {error.strerror or error}") from error


def as_array(value: Any) -> Any:
    """Arrays of other libraries (jax, torch, pandas) as numpy's; all else as it is."""
    if isinstance(value, np.ndarray | np.generic | str | bytes | Image.Image) or not hasattr(value, "__array__"):
        return value
    return np.asarray(value)


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def is_number(value: Any) -> bool:
    return isinstance(value, Real | np.number) and not isinstance(value, bool)


def value_kind(value: Any) -> str:
    """What a value is, for messages: `an array of float32[4]`, `a list`."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}{list(value.shape)}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeio" else f"a {name}"


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    if in_words(text) != text:  # an object without a name
        return value_kind(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
