"""The captions of `described_emoji`: two to four sentences about one tile, or both. All choices are drawn by hashes.

A caption introduces a tile by a sentence that tells some of its facts, and may tell more by others that refer back ("it
is on a red tile"); of both tiles it may tell how they stand to each other. All that it tells is true of the picture,
and none of it takes the name of an emoji, which nobody can know who hasn't seen it: that of one in validation or test.
"""

from collections.abc import Sequence

from mmjax.data.datasets.asked_emoji.answers import WORDS
from mmjax.data.datasets.described_emoji.tiles import ColouredTile, TiledScene
from mmjax.data.datasets.emoji_stories.grammar import hash_choice
from mmjax.data.datasets.spoken_emoji.catalogue import hashed

_ONE_TILE = 5  # of so many captions one is of a single tile
_MOST = 4  # sentences
_TOLD = ("count", "colour", "place")  # besides the kind, which each introduction tells
_RELATIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def captions_of(scene: TiledScene, key: str, number: int) -> list[str]:
    """So many different captions, drawn by a key."""
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < number:
        found[_caption(scene, f"{key}/caption/{attempt}")] = None
        attempt += 1
    return list(found)


def _caption(scene: TiledScene, key: str) -> str:
    tiles = list(scene.tiles) if hashed(f"{key}/order") % 2 else list(reversed(scene.tiles))
    del tiles[2 - (hashed(f"{key}/one") % _ONE_TILE == 0) :]
    told = []  # of each tile: its introduction, and what may follow
    for place, tile in enumerate(tiles):
        facts = sorted(_TOLD, key=lambda fact, place=place: hashed(f"{key}/{place}/{fact}"))
        at_once = 1 + hashed(f"{key}/{place}/at once") % len(_TOLD)
        if len(tiles) == 1:
            at_once = min(at_once, 2)  # so that another sentence can follow
            if tile.count == "one":  # whose number "a face" tells as well
                facts.remove("count")
                at_once = 1
        told.append((_introduced(tile, facts[:at_once], f"{key}/{place}"), _followed(tile, facts[at_once:])))
    related = _related(tiles, key) if len(tiles) == 2 and hashed(f"{key}/related") % 2 else []
    room = _MOST - len(tiles) - len(related)
    least = 1 if len(tiles) == 1 else 0
    more = least + hashed(f"{key}/more") % (room - least + 1)
    sentences = []
    for introduction, following in told:
        taken = following[:more]
        more -= len(taken)
        sentences += [introduction, *taken]
    return " ".join(f"{each[0].upper()}{each[1:]}." for each in [*sentences, *related])


def _introduced(tile: ColouredTile, facts: Sequence[str], key: str) -> str:
    """The sentence that first speaks of a tile, and tells these facts of it."""
    what = f"{tile.count} {_noun(tile)}" if "count" in facts else WORDS[tile.kind].one if _alone(tile) else _noun(tile)
    on = f" on {_coloured(tile)}" if "colour" in facts else ""
    at = f" at the {tile.place}" if "place" in facts else ""
    forms = [f"there {_are(tile)} {what}{on}{at}"]
    if on or at:
        forms.append(f"{what} {_are(tile)}{on}{at}")
    if on:
        forms += [f"{_coloured(tile)}{at} {shows} {what}" for shows in ("shows", "has")]
    if at:
        forms.append(f"{at[1:]} {_are(tile)} {what}{on}")
    return hash_choice(forms, f"{key}/form")


def _followed(tile: ColouredTile, facts: Sequence[str]) -> list[str]:
    """A sentence for each of these facts of the tile that was spoken of last."""
    sentences = {
        "count": f"there are {tile.count} of them",
        "colour": f"{'its' if _alone(tile) else 'their'} tile is {tile.colour}",
        "place": f"{'it' if _alone(tile) else 'they'} {_are(tile)} at the {tile.place}",
    }
    return [sentences[fact] for fact in facts if fact != "count" or not _alone(tile)]


def _related(tiles: Sequence[ColouredTile], key: str) -> list[str]:
    """A sentence about how the tiles of a caption stand to each other."""
    one, other = tiles if hashed(f"{key}/first") % 2 else reversed(tiles)
    relation = hash_choice(sorted(one.relations(other).values()), f"{key}/relation")
    return [f"the {_noun(one)} {_are(one)} {_RELATIONS[relation]} the {_noun(other)}"]


def _coloured(tile: ColouredTile) -> str:
    return f"{'an' if tile.colour[0] in 'aeiou' else 'a'} {tile.colour} tile"


def _alone(tile: ColouredTile) -> bool:
    return tile.count == "one"


def _noun(tile: ColouredTile) -> str:
    return tile.kind if _alone(tile) else WORDS[tile.kind].many


def _are(tile: ColouredTile) -> str:
    return "is" if _alone(tile) else "are"
