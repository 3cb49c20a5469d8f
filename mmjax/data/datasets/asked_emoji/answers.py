"""The answers of `asked_emoji`, and the words by which its questions speak of groups of emoji."""

from dataclasses import dataclass

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "white")
NUMBERS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class GroupWord:
    """A word for emoji of some of Unicode's subgroups.

    one: with its article, as in "is there an animal?", or "" for a word that names no clear group to ask about.
    many: the plural, as in "how many animals are there?", or "" where its emoji can't be counted.
    subgroups: Unicode's names of them, with spaces between.
    """

    one: str
    many: str
    subgroups: str


# Groups of which a picture leaves no doubt. Drinks are too few to be in every split; one emoji may show two people.
WORDS = {
    "animal": GroupWord(
        "an animal",
        "animals",
        "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug",
    ),
    "building": GroupWord("a building", "buildings", "place-building place-religious"),
    "clothing": GroupWord("any clothing", "", "clothing"),
    "face": GroupWord(
        "a face",
        "faces",
        "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy face-unwell face-hat "
        "face-glasses face-concerned",
    ),
    "flag": GroupWord("a flag", "flags", "flag country-flag subdivision-flag"),
    "food": GroupWord("any food", "", "food-fruit food-vegetable food-prepared food-asian food-sweet"),
    "hand": GroupWord(
        "a hand", "hands", "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands"
    ),
    "object": GroupWord(
        "",
        "",
        "sound music musical-instrument phone computer light-video book-paper money mail writing office lock tool "
        "science medical household other-object",
    ),
    "person": GroupWord(
        "a person",
        "",
        "person person-gesture person-role person-fantasy person-activity person-sport person-resting",
    ),
    "plant": GroupWord("a plant", "plants", "plant-flower plant-other"),
    "symbol": GroupWord(
        "a symbol",
        "symbols",
        "transport-sign warning arrow religion zodiac av-symbol gender math punctuation currency other-symbol keycap "
        "alphanum geometric",
    ),
    "vehicle": GroupWord("a vehicle", "vehicles", "transport-ground transport-water transport-air"),
}
_WORD = {subgroup: word for word, spoken in WORDS.items() for subgroup in spoken.subgroups.split()}

# Emoji that Unicode puts into a subgroup whose word doesn't fit them.
_MISFITS = {
    "animal": "1F43E 1FAB6 1F578",  # paw prints, feather, spider web
    "building": "1F9F1 1FAA8 1FAB5",  # brick, rock, wood
    "clothing": "1F48E 1F484 1F6CD 1FAAE 1FAAD",  # gem, lipstick, shopping bags, hair pick, fan
    "plant": "1FAB9 1FABA",  # nests
    "vehicle": (  # signs, lights, fuel, roads; anchor, buoy; parachute, seat
        "1F68F 1F6E3 1F6E4 1F6E2 26FD 1F6DE 1F6A8 1F6A5 1F6A6 1F6D1 1F6A7 2693 1F6DF 1FA82 1F4BA"
    ),
}
_MISFIT = {(word, emoji_id) for word, ids in _MISFITS.items() for emoji_id in ids.split()}

ANSWERS = ("yes", "no", *NUMBERS, "left", "right", "top", "bottom", "above", "below", *COLOURS, *WORDS)


def word_of(emoji_id: str, subgroup: str) -> str | None:
    """The word for an emoji, by Unicode's subgroup of it; None where none fits."""
    word = _WORD.get(subgroup)
    return None if word is None or (word, emoji_id) in _MISFIT else word
