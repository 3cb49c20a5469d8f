"""The catalogue of `stamps`: the picture, captions, speech and sound of each stamp in a folder of Tux Paint's.

Beside a picture `STEM.png` or `STEM.svg` lie `STEM.txt`, captions (English, then lines `LANG.utf8=…`); `STEM.ogg`, a
sound effect; `STEM_desc.ogg` and `STEM_desc_LANG.ogg`, the caption spoken. Letters and digits have `STEM_LANG.ogg` too.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# The languages with captions and speech; each is a config of `stamps`. Others have at most some dozens of recordings.
LANGUAGES = ("en", "be", "bg", "ca", "da", "el", "es", "fr", "nl", "ro", "ru")
PICTURES = (".png", ".svg")  # in this order: an SVG with text in it would be drawn in the fonts that a machine has
SOUNDS = (".ogg", ".wav")
_MIRROR = "_mirror"  # a picture of another stamp, drawn for the other direction
_DESCRIPTION = re.compile(r"_desc(?:_([a-z]{2,3})(?:_\w+)?)?")
_TRANSLATION = re.compile(r"_([a-z]{2,3})(?:_[A-Za-z]+)?")


@dataclass(frozen=True)
class Stamp:
    """One picture with its captions and sounds.

    id: its place in the folder, without an ending: "animals/birds/blackbird".
    captions: by language, those of `LANGUAGES` that there are; English always.
    speech: recordings of the caption, or of the name of a letter or digit, by language.
    sound: the effect, if there is one that isn't speech.
    """

    id: str
    picture: Path
    captions: dict[str, str]
    speech: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    sound: Path | None = None

    @property
    def category(self) -> str:
        """The first part of the id: "animals"."""
        return self.id.partition("/")[0]


def catalogue(root: Path) -> list[Stamp]:
    """Every stamp below `root` that has an English caption, by id. Mirrored pictures and stray files are left out."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in root.rglob("*"):
        if file.is_file():
            folders[file.parent].append(file)
    stamps = [stamp for folder in folders for stamp in _in_folder(root, sorted(folders[folder]))]
    return sorted(stamps, key=lambda stamp: stamp.id)


def read_captions(file: Path) -> dict[str, str]:
    """The captions of a `.txt` by language, those of `LANGUAGES` alone; empty ones are left out."""
    first, *others = file.read_text(encoding="utf-8-sig", errors="replace").splitlines() or [""]
    found = {"en": first}
    for line in others:
        language, equals, caption = line.partition(".utf8=")
        if equals and language in LANGUAGES and language != "en":
            found[language] = caption
    return {language: caption.strip() for language, caption in found.items() if caption.strip()}


def _in_folder(root: Path, files: list[Path]) -> list[Stamp]:
    pictures = {file.stem: file for ending in reversed(PICTURES) for file in files if file.suffix == ending}
    stems = sorted((stem for stem in pictures if not stem.endswith(_MIRROR)), key=len, reverse=True)
    of = {stem: {} for stem in stems}
    for file in files:
        # The longest: "gnu_baby_desc_es.ogg" is of "gnu_baby", and not of "gnu".
        stem = next((s for s in stems if file.stem == s or file.stem.startswith(f"{s}_")), None)
        if stem is not None:
            of[stem][file.name.removeprefix(stem)] = file
    stamps = []
    for stem, parts in of.items():
        captions = read_captions(parts[".txt"]) if ".txt" in parts else {}
        if "en" in captions:
            id = (pictures[stem].parent.relative_to(root) / stem).as_posix()
            speech, sound = _sounds(parts)
            stamps.append(Stamp(id, pictures[stem], captions, speech, sound))
    return stamps


def _sounds(parts: dict[str, Path]) -> tuple[dict[str, tuple[Path, ...]], Path | None]:
    """Speech by language, and the effect. `parts`: a stamp's files by what follows the stem in their names."""
    speech: dict[str, list[Path]] = defaultdict(list)
    sound, translated = None, False
    for rest, file in sorted(parts.items()):
        name = rest.removesuffix(file.suffix)
        if file.suffix not in SOUNDS:
            continue
        if name == "":
            sound = file
        elif match := _DESCRIPTION.fullmatch(name):
            speech[match[1] or "en"].append(file)
        elif match := _TRANSLATION.fullmatch(name):
            speech[match[1]].append(file)
            translated = True
    if translated and sound is not None:  # a translated sound is a word, not an effect
        speech["en"].insert(0, sound)
        sound = None
    return {language: tuple(speech[language]) for language in LANGUAGES if language in speech}, sound
