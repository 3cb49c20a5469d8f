"""What someone has at hand, as a row of a batch: pictures, strings, sounds, file names, alone or several.

The chain of the experiment does the work, as in evaluation; here stands what the data of a training run never is: a
file name, a waveform at another rate, an array that is preprocessed already. What can't be used is an error that says
which input it is; training would leave it out in silence. Pictures are seen upright, as their EXIF orientation says,
also by models whose own preprocessing leaves them as the camera held them.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import soxr
from etils import epath
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains
from mmjax.data.decoding.loudness import LARGEST, in_scale, to_int16
from mmjax.data.decoding.signatures import in_words
from mmjax.data.decoding.sounds import lasting
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import IdsAlone
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.contract import Labelled, Masked, Transform, prefix_mask
from mmjax.data.transforms.image import seen_upright
from mmjax.data.transforms.spans import heard, partly
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.errors import UserError, nearest

Row = dict[str, np.ndarray]

MOST_CHANNELS = 8  # of a waveform: which of two axes is time is told by it
CLIPPED = 0.01  # the share of a sound's samples at full scale from which on it is heard
RATES = (100, 10_000_000)  # Hz that a waveform may have: beyond, soxr takes all memory, or never ends
BRIGHTEST = 16.0  # a normalised picture's values are a few standard deviations; 255 is one that isn't normalised

TAKEN = {
    "image": "a PIL image, a uint8 array [H, W, 3], a file name, or bytes of a file",
    "text": "a string, or token ids as an array of ints [L]",
    "audio": "(waveform, sample_rate), a waveform [T] at the model's rate, a file name, or bytes of a file",
}


class Inputs:
    """Turns inputs of each modality into rows of a batch.

    upright: False reads pictures as the chain says. Text that is cut off, and sound that is clipped, are warned about
    once.
    """

    def __init__(self, chains: Chains, upright: bool = True):
        self.specs, self.upright = chains.specs, upright
        self._chains = {modality: _by_hand(chain, upright) for modality, chain in chains.transforms.items()}
        self._warned = self._warned_of_clipping = False
        self._warned_of_length = False

    def listed(self, modality: str, value: Any) -> tuple[Iterable[Any], bool]:
        """The inputs one by one, and whether `value` is one alone.

        Raises:
            UserError: it is neither an input nor several.
        """
        value = _array(value)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "OUS":
            return self._arrays(modality, value)
        if isinstance(value, str | bytes | os.PathLike | Image.Image):
            return [value], True
        if modality == "audio" and isinstance(value, tuple) and len(value) == 2 and _is_number(value[1]):
            return [value], True
        if modality == "audio" and isinstance(value, tuple) and len(value) == 2 and _is_number(value[0]):
            raise UserError("audio=(sample_rate, waveform) is the wrong way round: give (waveform, sample_rate)")
        if isinstance(value, Mapping) or not isinstance(value, Iterable):
            raise UserError(f"{modality}={short(value)}: {self._takes(modality)}, or a list of those")
        return value, False

    def _arrays(self, modality: str, value: np.ndarray) -> tuple[Iterable[Any], bool]:
        """An array is one input or a batch of them, by its number of dimensions."""
        alone = {"image": (2, 3), "text": (1,), "audio": (1,)}.get(modality, (len(self.specs[modality].shape),))
        if value.ndim in alone:
            return [value], True
        if modality == "audio" and value.ndim == 2 and value.shape[1:] != self.specs[modality].shape:
            raise UserError(
                f"audio is an array {list(value.shape)}: sound of several channels is (waveform, sample_rate), and "
                "several sounds are a list of arrays [T]"
            )
        if value.ndim == max(alone) + 1:
            return value, False
        raise UserError(f"{modality} is an array {list(value.shape)}; {self._takes(modality)}, or several of those")

    def row(self, modality: str, value: Any, place: int | None = None) -> Row:
        """The arrays of one input, by the batch's names: `image`, or `text` and `text_mask`.

        place: its number among several, for messages.

        Raises:
            UserError: it can't be used; says which one it is.
        """
        value = _array(value)
        named = os.path.basename(os.fspath(value)) if _is_path(value) and modality != "text" else None
        if place is None:
            where = f"{modality} {named}" if named else f"the {modality}"
        else:
            where = f"{modality} {place} ({named})" if named else f"{modality} {place}"
        try:
            read = {"image": self._image, "text": self._text, "audio": self._audio}.get(modality, self._other)
            values, mask = read(value, where)
        except BadExample as reason:
            raise UserError(f"{where}: {reason}") from reason
        return {modality: values} if mask is None else {modality: values, f"{modality}_mask": mask}

    def _image(self, value: Any, where: str) -> tuple[np.ndarray, None]:
        shape = self.specs["image"].shape
        if _is_path(value):
            value = _read(value, where)
        elif isinstance(value, np.ndarray):
            if np.issubdtype(value.dtype, np.floating) or value.dtype.name == "bfloat16":
                return _normalised(value, shape, where), None
            value = _picture(value, where)
        elif not isinstance(value, bytes | Image.Image):
            raise UserError(f"{where} is {_kind(value)}; {self._takes('image')}")
        return self._run("image", value)

    def _text(self, value: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            return self._ids(value, where)
        if not isinstance(value, str):
            raise UserError(f"{where} is {_kind(value)}; {self._takes('text')}")
        values, mask = self._run("text", str(value))
        if mask is not None and mask.all():
            self._warn_if_cut(str(value), where)
        return values, mask

    def _ids(self, ids: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids as they are, filled up to the chain's length."""
        (length,) = self.specs["text"].shape
        transform = next((t for t in self._chains["text"] if isinstance(t, Tokenize)), None)
        if transform is None or not isinstance(transform.tokenizer, Tokenizer):
            raise UserError(f"{where} is token ids, but the model has no tokenizer")
        if ids.ndim != 1 or not 0 < len(ids) <= length:
            raise UserError(f"{where} is ids {list(ids.shape)}; ids are an array [L] of 1 to {length}")
        alone = isinstance(transform.tokenizer, IdsAlone)
        vocab, whose = transform.tokenizer.vocab_size, "model" if alone else "tokenizer"
        if ids.min() < 0 or ids.max() >= vocab:
            raise UserError(f"{where} holds ids from {ids.min()} to {ids.max()}; the {whose}'s are 0 to {vocab - 1}")
        if alone and transform.pad is None and len(ids) < length:
            raise UserError(
                f"{where} is {len(ids)} ids of {length}, and which id fills up the rest, neither a tokenizer nor the "
                f"model's config says: give all {length}"
            )
        pad = transform.pad if transform.pad is not None else transform.tokenizer.pad
        row = np.full(length, pad, np.int32)
        row[: len(ids)] = ids
        if isinstance(transform.tokenizer, IdsAlone):
            return row, prefix_mask(length, transform.tokenizer.reach(ids, pad, transform.eos))
        return row, prefix_mask(length, transform.reach(ids))

    def _warn_if_cut(self, text: str, where: str) -> None:
        for transform in self._chains["text"]:
            if self._warned:
                return
            if not isinstance(transform, Tokenize):
                text = transform(text, None)
            elif isinstance(transform.tokenizer, Tokenizer):
                room = transform.length - transform.bos - transform.eos
                pieces = len(transform.tokenizer.encode(text))
                if pieces > room:
                    self._warned = True
                    warnings.warn(
                        f"{where} has {pieces} tokens, of which the model reads the first {room}; further texts that "
                        "are cut off aren't named",
                        stacklevel=2,
                    )
                return

    def _audio(self, value: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
        values, mask = self._heard(value, where)
        if mask is not None and mask.all() and not self._warned_of_length:
            self._warn_if_longer(value, where)
        if values.dtype == np.int16 and not self._warned_of_clipping:
            share = np.mean(np.abs(values[mask if mask is not None else ...].astype(np.int32)) >= LARGEST)
            if share > CLIPPED:
                self._warned_of_clipping = True
                warnings.warn(
                    f"{where}: {share:.0%} of its samples lie at full scale: what is louder was cut off, here (floats "
                    "beyond [-1, 1]) or in the recording; further sounds that are clipped aren't named",
                    stacklevel=2,
                )
        return values, mask

    def _warn_if_longer(self, value: Any, where: str) -> None:
        chain = self._chains["audio"]
        if _is_path(value) or isinstance(value, bytes):
            whole = lasting(value if isinstance(value, bytes) else os.path.expanduser(os.fspath(value)))
        else:
            wave, rate = value if isinstance(value, tuple) else (value, None)
            rate = rate or next((t.rate for t in chain if isinstance(t, DecodeAudio)), None)
            whole = max(np.shape(wave)) / rate if rate else None
        if said := partly(heard(chain), whole):
            self._warned_of_length = True
            warnings.warn(
                f"{where}: {said}, what follows is cut off; further sounds that are longer aren't named", stacklevel=2
            )

    def _heard(self, value: Any, where: str) -> tuple[np.ndarray, np.ndarray | None]:
        if _is_path(value):
            return self._run("audio", _read(value, where))
        if isinstance(value, bytes):
            return self._run("audio", value)
        rate = model_rate = next((t.rate for t in self._chains["audio"] if isinstance(t, DecodeAudio)), None)
        if isinstance(value, tuple) and len(value) == 2:
            value, rate = _array(value[0]), value[1]
            if not _is_number(rate) or not RATES[0] <= rate <= RATES[1]:
                raise UserError(
                    f"{where}: the sample rate is {short(rate)}; give (waveform, sample_rate), in Hz, from "
                    f"{RATES[0]} to {RATES[1]:,}"
                )
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            raise UserError(
                f"{where} is an array {list(value.shape)}: give several channels as (waveform, sample_rate)"
            )
        if not isinstance(value, np.ndarray):
            raise UserError(f"{where} is {_kind(value)}; {self._takes('audio')}")
        samples = _mono(value, where)
        if not len(samples):
            raise UserError(f"{where} is empty: it has no samples")
        if rate is not None and model_rate is not None and rate != model_rate:
            if samples.dtype == np.int16:  # as int16, soxr would add noise, another at each call
                samples = samples / np.float32(2**15)
            samples = to_int16(soxr.resample(samples, rate, model_rate))
        return self._run("audio", samples)

    def _other(self, modality: str) -> Any:
        raise UserError(f"{modality} has no inputs by hand")

    def _run(self, modality: str, value: Any) -> tuple[np.ndarray, Any]:
        for transform in self._chains[modality]:
            value = transform(value, None)
        value = value.value if isinstance(value, Labelled) else value
        return (value.values, value.mask) if isinstance(value, Masked) else (np.asarray(value), None)

    def _takes(self, modality: str) -> str:
        if modality not in TAKEN:
            return f"it takes arrays {list(self.specs[modality].shape)} or bytes of a file"
        given = f"it takes {TAKEN[modality]}"
        if modality == "image":
            given += f", or a float array {list(self.specs['image'].shape)} that is preprocessed already"
        return given


def _by_hand(chain: Sequence[Transform], upright: bool) -> list[Transform]:
    """The chain for a single input: an empty string is a text as good as any."""
    kept = [transform for transform in chain if not isinstance(transform, PickCaption)]
    kept = seen_upright(kept) if upright else kept
    return [replace(t, empty="keep") if isinstance(t, Tokenize) else t for t in kept]


def _normalised(value: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A float picture: what the tower makes of pixels, not pixels."""
    if value.shape != shape:
        raise UserError(
            f"{where} is a float array {list(value.shape)}: floats are taken as preprocessed, and must be "
            f"{list(shape)} then; give uint8 to have it resized"
        )
    value = value.astype(np.float32, copy=False)  # the batch that it goes into is a copy
    most = max(value.max(), -value.min())  # NaN where one is
    if not np.isfinite(most):
        raise UserError(f"{where} holds values that aren't finite")
    if most > BRIGHTEST:
        raise UserError(
            f"{where} is a float array with values up to {most:g}: floats are taken as normalised "
            "already (mostly in [-3, 3]); give pixels as uint8"
        )
    return value


def _picture(value: np.ndarray, where: str) -> np.ndarray:
    if value.ndim == 3 and value.shape[-1] == 1:
        return value[..., 0]
    if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[-1] > 4):
        turn = "; np.moveaxis(x, 0, -1) puts the channels last" if value.ndim == 3 and value.shape[0] <= 4 else ""
        raise UserError(f"{where} has the shape {list(value.shape)}; a picture is [H, W], [H, W, 3] or [H, W, 4]{turn}")
    if not value.size:
        raise UserError(f"{where} is empty: it has the shape {list(value.shape)}")
    if value.dtype.kind in "iu" and value.dtype.itemsize > 2:
        raise UserError(f"{where} is an array of {value.dtype}; a picture is of uint8 or uint16")
    return value


def _mono(value: np.ndarray, where: str) -> np.ndarray:
    """One channel, the mean of several, as int16 or float32 with full scale 1.

    Raises BadExample where the numbers lie on another scale (`loudness.in_scale`)."""
    if value.ndim not in (1, 2) or (value.ndim == 2 and min(value.shape) > MOST_CHANNELS):
        raise UserError(f"{where} has the shape {list(value.shape)}; a waveform is [T], [T, channels] or [channels, T]")
    if value.dtype.kind not in "iuf":
        raise UserError(f"{where} is an array of {value.dtype}; a waveform holds int16, or floats in [-1, 1]")
    if value.dtype.kind == "u" or (value.dtype.kind == "i" and value.dtype.itemsize not in (2, 4)):
        raise UserError(f"{where} is an array of {value.dtype}; integers are int16 or int32")
    value = in_scale(value)
    if value.dtype != np.int16:
        value = value.astype(np.float32)
    if value.ndim == 2:
        channels = int(np.argmin(value.shape))
        value = value.mean(axis=channels, dtype=np.float32).astype(value.dtype) if value.size else value.reshape(-1)
    return value


def _read(value: str | os.PathLike[str], where: str) -> bytes:
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


def _array(value: Any) -> Any:
    """Arrays of other libraries (jax, torch, pandas) as numpy's; all else as it is."""
    if isinstance(value, np.ndarray | np.generic | str | bytes | Image.Image) or not hasattr(value, "__array__"):
        return value
    return np.asarray(value)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.number) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}{list(value.shape)}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeio" else f"a {name}"


def short(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    if in_words(text) != text:  # an object without a name
        return _kind(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
