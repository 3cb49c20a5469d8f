"""Kinds of a batch's entries, which decide how people see them: pictures, texts, sounds, videos, or one's own.

A chain says the kind of its entry (`Spec.kind`), whatever that is called. Where there is no chain, for embeddings in
files and columns of known datasets, the usual names say it.
"""

from collections.abc import Iterable, Mapping

from mmjax.data.chains import Transforms, chain_specs
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.text_input import TextInput
from mmjax.data.transforms.video_input import VideoInput

Kinds = Mapping[str, type[Input]]  # by entry

USUAL: Kinds = {"image": PictureInput, "text": TextInput, "audio": SoundInput, "video": VideoInput}


def kinds_of(transforms: Transforms) -> dict[str, type[Input]]:
    """The kind of what each chain gives."""
    return {name: spec.kind for name, spec in chain_specs(transforms).items()}


def kind_of(name: str, kinds: Kinds) -> type[Input]:
    """The kind of an entry; by its name where `kinds` says nothing of it."""
    return kinds.get(name) or USUAL.get(name, Input)


def words_of(kinds: Kinds) -> str | None:
    """The entry of words that strings go with which are no example's, and that names examples: `text`, or the first;
    None where there is none."""
    words = [name for name, kind in kinds.items() if kind.words]
    return "text" if "text" in words else next(iter(words), None)


def ordered(names: Iterable[str], kinds: Kinds) -> list[str]:
    """Texts first, then pictures and videos, sounds, and what can't be shown; of one kind as they come."""

    def place(name: str) -> int:
        kind = kind_of(name, kinds)
        return (kind.words, kind.draws, kind.plays, True).index(True)

    return sorted(names, key=place)


def entries(columns: Iterable[str], kinds: Kinds) -> dict[str, str]:
    """Returns which entry of a model reads each column of a dataset that has the usual names.

    It is the entry of that name, else the only one of its kind; a column that none reads, or that several could, is
    left out.
    """
    found = {name: name for name in columns if name in kinds}
    for name in columns:
        alike = [entry for entry, kind in kinds.items() if name in USUAL and kind is USUAL[name]]
        if name not in found and len(alike) == 1 and alike[0] not in found.values():
            found[name] = alike[0]
    return found
