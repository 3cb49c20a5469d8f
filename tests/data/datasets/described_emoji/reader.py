"""Reads captions and dialogues back, by rules of its own: what do they say, and is it so?"""

import re
from typing import Any

COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}
PLURALS = {f"{kind}s": kind for kind in ("animal", "building", "face", "flag", "hand", "plant", "symbol", "vehicle")}
NOUN = "|".join([*PLURALS, *PLURALS.values()])
WHAT = rf"(?:(?P<count>one|two|three|four|a|an) )?(?P<noun>{NOUN})"
ON = r"an? (?P<colour>red|orange|yellow|green|blue|purple|pink|brown|grey) tile"
AT = r"at the (?P<row>top|bottom) (?P<column>left|right)"
INTRODUCED = (
    rf"there (?P<verb>is|are) {WHAT}(?: on {ON})?(?: {AT})?",
    rf"{WHAT} (?P<verb>is|are)(?: on {ON})?(?: {AT})?",
    rf"{ON}(?: {AT})? (?:shows|has) {WHAT}",
    rf"{AT} (?P<verb>is|are) {WHAT}(?: on {ON})?",
)
FOLLOWED = (
    r"(?P<verb>there are) (?P<count>two|three|four) of them",
    r"(?P<who>its|their) tile is (?P<colour>\w+)",
    rf"(?P<who>it|they) (?P<verb>is|are) {AT}",
)
RELATED = (
    rf"the (?P<noun>{NOUN}) (?P<verb>is|are) (?P<how>to the left of|to the right of|above|below) the (?P<other>{NOUN})"
)


def seen(tile):
    """A tile's facts as numbers: the rows and columns of places are counted from the top left."""
    row, column = tile["place"].split()
    where = ["top", "bottom"].index(row), ["left", "right"].index(column)
    return {"kind": tile["kind"], "colour": tile["colour"], "count": COUNTS[tile["count"]], "where": where}


def kind_of(noun):
    return PLURALS.get(noun, noun)


def read_caption(caption, tiles):
    """The (kind, fact) pairs that a caption tells, with "left" and so on among the facts. Raises AssertionError where a
    sentence isn't understood, or isn't true of the tiles (two mappings of facts).
    """
    shown = {tile["kind"]: seen(tile) for tile in tiles}
    told: list[tuple[Any, str]] = []
    last: Any = None
    sentences = re.findall(r"[A-Z][^.]*\.(?: |$)", caption)
    assert "".join(sentences) == caption, caption
    for sentence in (each.strip()[:-1].lower() for each in sentences):
        found: Any = None
        match: Any = None
        if match := re.fullmatch(RELATED, sentence):
            one, other = shown[kind_of(match["noun"])], shown[kind_of(match["other"])]
            across, down = one["where"][1] - other["where"][1], one["where"][0] - other["where"][0]
            how = match["how"]
            assert {"to the left of": across < 0, "to the right of": across > 0, "above": down < 0, "below": down > 0}[
                how
            ], sentence
            assert {kind for kind, *_ in told} >= {one["kind"], other["kind"]}, f"{sentence}: not introduced"
            assert (match["noun"] in PLURALS) == (one["count"] > 1) == (match["verb"] == "are"), sentence
            assert (match["other"] in PLURALS) == (other["count"] > 1), sentence
            told.append((one["kind"], how))
            continue
        for pattern in INTRODUCED:
            if match := re.fullmatch(pattern, sentence):
                found = match.groupdict()
                last = shown[kind_of(found["noun"])]
                assert last["kind"] not in {kind for kind, *_ in told}, f"{sentence}: introduced twice"
                told.append((last["kind"], "kind"))
                assert (found["noun"] in PLURALS) == (last["count"] > 1), sentence
                if found["count"] in ("a", "an"):
                    assert last["count"] == 1, sentence
                    found["count"] = None
                break
        else:
            match = next(filter(None, (re.fullmatch(pattern, sentence) for pattern in FOLLOWED)), None)
            assert match, f"not understood: {sentence!r}"
            found = match.groupdict()
            if found.get("who"):
                assert (found["who"] in ("it", "its")) == (last["count"] == 1), sentence
        if found.get("verb"):
            assert ("are" in found["verb"]) == (last["count"] > 1), sentence
        if found.get("count"):
            assert COUNTS[found["count"]] == last["count"], sentence
            told.append((last["kind"], "count"))
        if found.get("colour"):
            assert found["colour"] == last["colour"], sentence
            told.append((last["kind"], "colour"))
        if found.get("row"):
            assert (found["row"], found["column"]) == (
                ("top", "bottom")[last["where"][0]],
                ("left", "right")[last["where"][1]],
            ), sentence
            told.append((last["kind"], "where"))
    assert len(set(told)) == len(told), f"told twice: {caption}"
    return told, len(sentences)


FACT = (("kind", "kind of emoji"), ("colour", "colour"), ("count", "how many"), ("place", "where|in which corner"))


def answers(questions, tiles):
    """The answer to each question of a dialogue, who has heard all before; None where one can't be understood.

    tiles: two mappings of facts.
    """
    given, tile, fact = [], None, None
    for question in (question.lower() for question in questions):
        other = tiles[1 - tiles.index(tile)] if tile else None
        if "left or to the right" in question or "above or below" in question:
            if tile is None:
                given.append(None)
                continue
            (row, column), (other_row, other_column) = seen(tile)["where"], seen(other)["where"]
            if "above" in question:
                given.append({-1: "above", 1: "below"}.get(row - other_row))
            else:
                given.append({-1: "left", 1: "right"}.get(column - other_column))
            fact = None
            continue
        named = [t for t in tiles for by in ("kind", "colour", "place") if f"the {t[by]} tile" in question]
        asked = [fact for fact, words in FACT if re.search(words, question)]
        if "other" in question:
            tile = other
        else:
            tile = named[0] if named else tile if re.search(r"\bit\b", question) else None
            fact = asked[0]
            assert len(asked) == 1, question
            assert len(named) <= 1, question
        given.append(tile[fact] if tile and fact else None)
    return given
