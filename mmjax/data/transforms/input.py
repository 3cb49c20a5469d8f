"""Reads a user's input into a row of a batch: an array, a file's name, its bytes; one or several.

The chain does the work, as in evaluation; this file handles forms that training data never has: a file name, several in
one array. An input that can't be used is an error that names it; training would silently leave it out.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, TypeVar

import numpy as np
from etils import epath
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.signatures import in_words
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.errors import UserError, nearest

_T = TypeVar("_T")
Row = dict[str, np.ndarray]
Read = tuple[np.ndarray, np.ndarray | None]  # an array of the batch, and its mask


class Input:
    """Reads the inputs of one modality. The last step of a chain names the class (`Spec.kind`): this one takes arrays
    unchanged, for a modality other than pictures, texts and sounds, and may be subclassed for one of your own.

    one, several: the nouns for examples; "": the modality's name.
    unit: the noun for a mask's places.
    words: whether examples are words: they are shown as they are, and there is no file to be read.
    draws: whether `drawn` makes a picture of an example, to be looked at.
    plays: whether `played` makes a sound of it, to be listened to.
    moves: whether `filmed` makes a clip of it, to be watched; what moves is drawn too.
    endings: of the names of files that hold an example, by which a folder is searched for them.
    amount: the name of what `disturbed` takes; "": examples can't be disturbed.
    """

    one: ClassVar[str] = ""
    several: ClassVar[str] = ""
    unit: ClassVar[str] = "places"
    words: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    plays: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    endings: ClassVar[tuple[str, ...]] = ()
    amount: ClassVar[str] = ""

    def __init__(self, modality: str, chain: Sequence[Any], spec: Any, upright: bool = True):
        """chain: its transforms, whose tokenizers have their models. spec: the chain's."""
        self.modality, self.spec = modality, spec
        self.chain = [step for transform in chain if (step := transform.by_hand(upright)) is not None]

    @classmethod
    def made_up(cls) -> tuple[Any, str] | None:
        """A stored example to time a chain with, and its description; None where there is none."""
        return None

    @classmethod
    def drawn(cls, value: Any) -> np.ndarray:
        """An example as a picture, uint8 [H, W, 3], of what is stored or of what a batch holds.

        Raises `BadExample` where it can't be used.
        """
        raise NotImplementedError

    @classmethod
    def played(cls, value: Any, rate: int | None = None) -> tuple[np.ndarray, int]:
        """Gives what is stored as a sound, and its rate in Hz: int16 [T] at `rate`; where that is None at its own rate,
        int16 [T] or [T, channels]. Raises `BadExample` where it can't be used."""
        raise NotImplementedError

    @classmethod
    def filmed(cls, value: Any, seconds: float, side: int) -> bytes:
        """The first `seconds` of what is stored as a WebM file, with its sound; the shorter side has `side` pixels.

        Raises `BadExample` where it can't be used.
        """
        raise NotImplementedError

    @classmethod
    def disturbed(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None,
        amount: float,
        random: np.random.Generator,
        chain: Sequence[Any],
    ) -> np.ndarray:
        """One example's array of a batch, disturbed: noise, or wrong words. What it draws doesn't depend on the amount.

        mask: its real places. chain: its transforms, whose tokenizers have their models.

        Raises UserError for an amount that isn't allowed, or an array that can't be disturbed.
        """
        raise UserError(f"there is no way to disturb what a {cls.__name__} reads")

    @classmethod
    def measured(cls, length: int, rate: int | None) -> str:
        """A length in words, for a message that recommends one."""
        return f"{length:,}"

    @classmethod
    def lost(cls, length: int, rate: int | None) -> str:
        """The end of the message about examples longer than the model's input of `length` `unit`."""
        return f"than the model reads, and lose what comes after {length:,} {cls.unit}"

    @property
    def takes(self) -> str:
        """The inputs that are allowed, for messages."""
        return f"it takes an array {list(self.spec.shape)}, a file name, or bytes of a file"

    @property
    def alone(self) -> tuple[int, ...]:
        """The numbers of axes of an array that is one input."""
        return (len(self.spec.shape),)

    def listed(self, value: Any) -> tuple[Iterable[Any], bool]:
        """The inputs one by one, and whether `value` is a single one.

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
        """True if a value that is neither an array nor a file is one input, though it can be iterated over."""
        del value
        return False

    def _arrays(self, value: np.ndarray) -> tuple[Iterable[Any], bool]:
        """The inputs in an array, which is one input or a batch, by its number of dimensions."""
        if value.ndim in self.alone:
            return [value], True
        if value.ndim == max(self.alone) + 1:
            return value, False
        raise UserError(f"{self.modality} is an array {list(value.shape)}; {self.takes}, or several of those")

    def row(self, value: Any, place: int | None = None) -> Row:
        """The arrays of one input, by the batch's names: `image`, or `text` and `text_mask`.

        place: its number among several, for messages.

        Raises:
            UserError: it can't be used; the message says which one it is.
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
            BadExample: its chain can't use it. UserError: its type isn't allowed.
        """
        values, mask = self.run(file_content(value, where) if is_path(value) else value)
        if values.shape != self.spec.shape:
            raise UserError(
                f"{where}: its chain makes {list(values.shape)} of it, and the model reads {list(self.spec.shape)}; "
                f"{self.takes}"
            )
        return values, mask

    def run(self, value: Any) -> Read:
        """Applies the chain to a value."""
        for transform in self.chain:
            value = transform(value, None)
        value = value.value if isinstance(value, Labelled) else value
        return (value.values, value.mask) if isinstance(value, Masked) else (np.asarray(value), None)


def file_content(value: str | os.PathLike[str], where: str) -> bytes:
    """The bytes of a file. Raises UserError where it can't be read, or lies on the web."""
    name = os.fspath(value)

    def read() -> bytes:
        if "://" in name:
            return epath.Path(name).read_bytes()
        with open(os.path.expanduser(name), "rb") as file:  # epath takes 50 µs for each
            return file.read()

    return _or_told(read, name, where)


def local_file(value: str | os.PathLike[str], where: str) -> str:
    """The path of a file on this machine, which can be opened. Raises as `file_content` does."""
    name = os.path.expanduser(os.fspath(value))

    def opened() -> str:
        with open(name, "rb"):
            return name

    return _or_told(opened, name, where)


def _or_told(reading: Callable[[], _T], name: str, where: str) -> _T:
    """What `reading` gives, or a UserError that says why there is no such file."""
    if name.startswith(("http://", "https://")):
        raise UserError(f"{where}: {name} lies on the web, and nothing is fetched: give a file, or its bytes")
    try:
        return reading()
    except FileNotFoundError:
        path = epath.Path(name).expanduser()
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{where}: there is no file {name}{nearest(path.name, beside)}") from None
    except OSError as error:
        raise UserError(f"{where}: {name} can't be read: {error.strerror or error}") from error


def as_array(value: Any) -> Any:
    """Converts arrays of other libraries (jax, torch, pandas) to numpy; anything else is unchanged."""
    if isinstance(value, np.ndarray | np.generic | str | bytes | Image.Image) or not hasattr(value, "__array__"):
        return value
    return np.asarray(value)


def is_path(value: Any) -> bool:
    """True for the name of a file."""
    return isinstance(value, str | os.PathLike)


def is_number(value: Any) -> bool:
    """True for a real number, numpy's too, but not for a bool."""
    return isinstance(value, Real | np.number) and not isinstance(value, bool)


def value_kind(value: Any) -> str:
    """The type of a value, for messages: `an array of float32[4]`, `a list`."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}{list(value.shape)}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeio" else f"a {name}"


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    if in_words(text) != text:  # an object's default repr, with its address
        return value_kind(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
