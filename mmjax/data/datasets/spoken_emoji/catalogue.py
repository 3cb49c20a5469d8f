"""The catalogue of `spoken_emoji`: each emoji's names, group, split, and the voices that speak it.

All random choices are drawn by a hash of the emoji's id, so they don't change when emoji are added.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("groups.tsv")
LANGUAGES = ("ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
SPLITS = {"train": 0.85, "validation": 0.05, "test": 0.10}

ACCENTS = (
    "en",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-us",
    "en-us-nyc",
)
# A variant is the speaker (formants, breath, pitch), an accent only the pronunciation: splits share accents, not
# variants. None is of the Klatt synthesizer (adam, caleb, ...), whose sound depends on earlier utterances.
TRAIN_VARIANTS = (
    *("f1", "f3", "f5", "m2", "m4", "m5", "m6", "m7", "m8"),
    *("belinda", "gustave", "john", "linda", "max", "Michael", "paul", "robert", "steph", "victor", "zac"),
)
VALIDATION_VOICES = ("en-us+f4", "en+m1")
TEST_VOICES = ("en-us+f2", "en-gb-x-rp+m3")
TRAIN_UTTERANCES = 5

SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
_EMOJI_PRESENTATION = "FE0F"  # chooses the coloured form of a character; OpenMoji's file names drop it for single ones


@dataclass(frozen=True)
class Utterance:
    """One way to speak a name: eSpeak NG's voice, words a minute, base pitch and spread of the intonation (0
    to 100).
    """

    voice: str
    rate: int
    pitch: int
    spread: int


@dataclass(frozen=True)
class Entry:
    """One emoji. `names` holds every language that has one, `id` is the stem of OpenMoji's file."""

    id: str
    names: dict[str, str]
    group: str
    subgroup: str
    split: str
    utterances: tuple[Utterance, ...]


def hashed(text: str) -> int:
    """The first 64 bits of BLAKE2b, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def base_id(emoji_id: str) -> str:
    """The id without skin tones and presentation selectors, under which the table of groups holds it."""
    return "-".join(code for code in emoji_id.split("-") if code not in SKIN_TONES and code != _EMOJI_PRESENTATION)


@cache
def groups() -> dict[str, tuple[str, str]]:
    """Unicode's (group, subgroup) of every `base_id`."""
    table = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            group, subgroup, ids = line.split("\t")
            table.update(dict.fromkeys(ids.split(), (group, subgroup)))
    return table


def split_of(emoji_id: str) -> str:
    """The split that an id's hash falls into."""
    place = hashed(f"split/{emoji_id}") / 2**64
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    return "test"


def utterances_of(emoji_id: str, split: str) -> tuple[Utterance, ...]:
    """The utterances of an emoji's name: in training different variants in drawn accents, else the split's voices."""

    def draw(what: str, low: int, high: int) -> int:
        return low + hashed(f"{what}/{emoji_id}") % (high - low + 1)

    if split != "train":
        voices = VALIDATION_VOICES if split == "validation" else TEST_VOICES
        return tuple(Utterance(v, draw(f"rate/{v}", 150, 185), draw(f"pitch/{v}", 42, 58), 50) for v in voices)
    variants = sorted(TRAIN_VARIANTS, key=lambda variant: hashed(f"variant/{variant}/{emoji_id}"))[:TRAIN_UTTERANCES]
    return tuple(
        Utterance(
            f"{ACCENTS[draw(f'accent/{v}', 0, len(ACCENTS) - 1)]}+{v}",
            draw(f"rate/{v}", 135, 215),
            draw(f"pitch/{v}", 25, 75),
            draw(f"spread/{v}", 30, 75),
        )
        for v in variants
    )


def _linked(names: dict[str, dict[str, str]]) -> dict[str, str]:
    """The smallest id, for each id, that it is linked to by a chain of shared names (in any language, case ignored)."""
    leader = {emoji_id: emoji_id for emoji_id in names}

    def find(emoji_id: str) -> str:
        while leader[emoji_id] != emoji_id:
            emoji_id = leader[emoji_id]
        return emoji_id

    holder: dict[str, str] = {}
    for emoji_id in sorted(names):
        for name in names[emoji_id].values():
            first, second = sorted((find(holder.setdefault(name.casefold(), emoji_id)), find(emoji_id)))
            leader[second] = first
    return {emoji_id: find(emoji_id) for emoji_id in names}


def emoji_words(name: str) -> str:
    """A name of the package `emoji` as words: `:waving_hand:` is "waving hand"."""
    return " ".join(name.strip(":").replace("_", " ").split())


def catalogue(pictures: Iterable[str]) -> list[Entry]:
    """Every fully qualified emoji that has an English name and a picture, by id. `pictures`: stems of OpenMoji's files.

    Emoji that share a name in some language share a split too, else a caption of one split would be in another.

    Raises:
        ImportError: the package `emoji` is missing.
        KeyError: an emoji isn't in the table of groups, which is then older than the package `emoji`.
    """
    import emoji

    emoji.config.load_language()
    pictures = set(pictures)
    names: dict[str, dict[str, str]] = {}
    for characters, data in emoji.EMOJI_DATA.items():
        codes = [f"{ord(character):04X}" for character in characters]
        full, short = "-".join(codes), "-".join(code for code in codes if code != _EMOJI_PRESENTATION)
        emoji_id = full if full in pictures else short
        if data["status"] == emoji.STATUS["fully_qualified"] and "en" in data and emoji_id in pictures:
            names[emoji_id] = {lang: emoji_words(data[lang]) for lang in LANGUAGES if lang in data}
    leader = _linked(names)
    entries = []
    for emoji_id in sorted(names):
        split = split_of(leader[emoji_id])
        group, subgroup = groups()[base_id(emoji_id)]
        entries.append(Entry(emoji_id, names[emoji_id], group, subgroup, split, utterances_of(emoji_id, split)))
    return entries
