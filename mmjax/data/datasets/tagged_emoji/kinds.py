"""The kinds of named things in `tagged_emoji`, and the tags that its words have."""

# Groups of Unicode's, as far as a picture leaves no doubt of them: by the words for their emoji in `asked_emoji`.
KINDS = {
    "NATURE": ("animal", "plant"),
    "FOOD": ("food",),
    "PERSON": ("person",),
    "OBJECT": ("object", "clothing"),
    "TRAVEL": ("vehicle", "building"),
}
EMOJI_TAGS = ("O", *(f"{place}-{kind}" for kind in KINDS for place in "BI"))
_KIND = {word: kind for kind, words in KINDS.items() for word in words}


def named_kind(word: str) -> str | None:
    """The kind of the emoji that a word of `asked_emoji` stands for; None where it has none."""
    return _KIND.get(word)


def tagged(name: str, kind: str) -> list[tuple[str, str]]:
    """The words of a name, each with its tag."""
    return [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(name.split())]
