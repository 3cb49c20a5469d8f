"""The columns of examples whose parts are files of a tar: which file, or entry of its JSON, is which, and its value."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.data.sources.cells import label, stripped
from mmjax.data.sources.contract import MEDIA, MODALITIES
from mmjax.data.sources.json_values import json_caption, json_entry
from mmjax.errors import UserError, nearest
from mmjax.runtime.files import json_text

USUAL = {  # the suffixes of each modality, of which the first counts that an example has
    "image": "jpg;jpeg;png;webp;gif;bmp;tif;tiff",
    "text": "txt;text;caption;json/caption;json/text",
    "audio": "flac;wav;mp3;ogg;opus;m4a",
    "video": "mp4;webm;mkv;mov;avi",
}
JSON, WORDS = "json", ("txt", "text", "caption", "cls", "json")


class Taken(NamedTuple):
    """The place of a value: in the file of that suffix, and there, if there is a path, in an entry of its JSON."""

    suffix: str
    path: tuple[str, ...] = ()


class TarColumns:
    """The places that each column is taken from, by its name, in order.

    wanted: the suffixes that they need. media: the columns that hold whole files that aren't words.
    """

    def __init__(self, where: str, fields: Mapping[str, str], suffixes: Sequence[str], entries: Mapping[str, Any]):
        """where: the source, for messages. fields: by column, suffixes, as `Tars` has them. suffixes: that the tars
        have. entries: of the JSON of an example.

        Raises UserError where no example has what `fields` names.
        """
        self.places: dict[str, list[Taken]] = {}
        usual = {name: wanted for name, wanted in USUAL.items() if name not in fields}
        for column, wanted in {**usual, **fields}.items():
            if column == "id":
                raise UserError(f"{where}, fields={{'id': ...}}): an example's id is its tar's name and its key")
            places = [_taken(where, column, one) for one in wanted.split(";") if one.strip()]
            # A usual entry of the JSON counts where the first example has it; one that is asked for, always.
            found = [
                place
                for place in places
                if place.suffix in suffixes
                and (column in fields or not place.path or json_entry(entries, place.path) is not None)
            ]
            if found:
                self.places[column] = found
            elif column in fields:
                raise UserError(
                    f"{where}, fields={{{column!r}: {wanted!r}}}): no example has such a file; the suffixes are "
                    f"{', '.join(suffixes)}{nearest(wanted.partition('/')[0], suffixes)}"
                )
        if not any(name in self.places for name in (*MODALITIES, *fields)):
            raise UserError(
                f"{where}) has no pictures, texts, sounds or videos by their usual suffixes, its own are "
                f"{', '.join(suffixes)}: say which is which, Tars(..., fields={{'image': ...}})"
            )
        used = {place.path[0] for each in self.places.values() for place in each if place.path}
        for name in entries:
            if name not in used and name != "id":
                self.places.setdefault(name, [Taken(JSON, (name,))])
        if "cls" in suffixes:
            self.places.setdefault("cls", [Taken("cls")])
        self.wanted = {place.suffix for each in self.places.values() for place in each}
        self.media = tuple(
            name
            for name, each in self.places.items()
            if name in MEDIA or any(not place.path and place.suffix not in WORDS for place in each)
        )

    def values(self, contents: Mapping[str, bytes]) -> dict[str, Any]:
        """The values of an example, of its files' contents by suffix; None where it has none.

        A text that is none (broken JSON, another encoding) stays bytes, which the chain reports and counts.
        """
        parsed = parsed_json(contents.get(JSON))
        return {column: self._value(column, places, contents, parsed) for column, places in self.places.items()}

    def _value(self, column: str, places: Sequence[Taken], contents: Mapping[str, bytes], parsed: Any) -> Any:
        for suffix, path in places:
            if suffix not in contents:
                continue
            if not path:
                value = _file_value(column, suffix, contents[suffix])
            elif parsed is _BROKEN:
                value = contents[JSON] if column == "text" else None
            else:
                value = json_entry(parsed, path)
                value = json_caption(value) if column == "text" else label(value)
            if value is not None:
                return value
        return None


def parsed_json(content: bytes | None) -> Any:
    """The value of a JSON file; None where there is none."""
    if content is None:
        return None
    try:
        return json_text.parse(content)
    except (ValueError, RecursionError):
        return _BROKEN


_BROKEN: Any = object()


def _taken(where: str, column: str, said: str) -> Taken:
    """One of the suffixes of a field, perhaps with a path."""
    suffix, _, path = said.strip().partition("/")
    suffix = suffix.lower().removeprefix(".")
    if path and suffix != JSON:
        raise UserError(f"{where}, fields={{{column!r}: {said!r}}}): only a .json has entries, such as json/caption")
    return Taken(suffix, tuple(path.split("/")) if path else ())


def _file_value(column: str, suffix: str, content: bytes) -> Any:
    """The value of a whole file: text where it is one, the number of a `.cls`, or the bytes."""
    if suffix == "cls":
        text = content.decode("utf-8", "backslashreplace").strip()
        return int(text) if text.lstrip("-").isdecimal() else text or None
    if column == "text" or suffix in WORDS:
        try:
            return stripped(content.decode("utf-8-sig"))
        except UnicodeDecodeError:
            return content  # the chain reports that it is no text
    return content or None
