"""Emoji and scenes of the tests' own."""

from mmjax.data.datasets.asked_emoji.scenes import Placed, Scene
from mmjax.data.datasets.asked_emoji.things import Thing


def thing(name: str, word: str, colour: str | None = None, split: str = "train") -> Thing:
    return Thing(name.replace(" ", "-"), name, word, colour, split)


def scene(name: str, quarters: dict[tuple[int, int], Thing]) -> Scene:
    """The emoji of each quarter (row, column), 40 pixels a side in its corner."""
    placed = (Placed(each, row, column, 40, 48 * column, 48 * row) for (row, column), each in quarters.items())
    return Scene(name, tuple(placed))


def many(split: str = "train", each: int = 6) -> list[Thing]:
    """Emoji of four words and four colours."""
    words, colours = ("animal", "vehicle", "plant", "flag"), ("red", "green", "blue", "white")
    return [
        thing(f"{colour} {word} {'abcdefgh'[i]}", word, colour, split)
        for i in range(each)
        for word in words
        for colour in colours
    ]
