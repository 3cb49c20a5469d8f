import itertools
import re
from collections import Counter

import pytest

from mmjax.data.datasets.described_emoji.captions import captions_of
from mmjax.data.datasets.described_emoji.tiles import FACTS, ColouredTile, TiledScene
from tests.data.datasets.described_emoji.reader import read_caption


def facts_of(scene):
    return [tile.facts() for tile in scene.tiles]


@pytest.fixture(scope="module")
def written(planned):
    scenes = [*planned["train"][:1_000], *planned["test"]]
    return [(scene, caption) for scene in scenes for caption in captions_of(scene, scene.id, 5)]


def test_every_sentence_is_true_of_its_picture(written):
    for scene, caption in written:
        read_caption(caption, facts_of(scene))


def test_the_reader_finds_each_untruth(written):
    """Of a caption beside another picture, in which one told fact differs, it says so."""
    found = Counter()
    for scene, caption in written[:1_500]:
        told, _ = read_caption(caption, facts_of(scene))
        for kind, fact in told:
            tiles = facts_of(scene)
            one, other = tiles if tiles[0]["kind"] == kind else tiles[::-1]
            if fact == "kind":
                one["kind"] = next(each for each in FACTS["kind"] if each not in (kind, other["kind"]))
            elif fact in ("colour", "count"):
                one[fact] = next(each for each in FACTS[fact] if each not in (one[fact], other[fact]))
            elif fact == "where":
                one["place"] = next(each for each in FACTS["place"] if each not in (one["place"], other["place"]))
            else:
                one["place"], other["place"] = other["place"], one["place"]
            with pytest.raises((AssertionError, KeyError)):
                read_caption(caption, tiles)
            found[fact] += 1
    assert set(found) == {"kind", "colour", "count", "where", "to the left of", "to the right of", "above", "below"}
    assert min(found.values()) > 50


def test_captions_have_two_to_four_sentences_about_one_tile_or_both(written):
    read = [read_caption(caption, facts_of(scene)) for scene, caption in written]
    numbers = Counter(sentences for _, sentences in read)
    assert set(numbers) == {2, 3, 4}
    assert min(numbers.values()) > 0.15 * len(written)
    tiles = Counter(len({kind for kind, _ in told}) for told, _ in read)
    assert set(tiles) == {1, 2}
    assert 0.15 < tiles[1] / len(written) < 0.25
    facts = Counter(fact for told, _ in read for _, fact in told)
    assert min(facts[fact] for fact in ("count", "colour", "where")) > 0.7 * len(written)
    assert min(facts[how] for how in ("to the left of", "to the right of", "above", "below")) > 0.05 * len(written)


def test_captions_of_a_picture_differ_in_words_and_in_what_they_tell(planned):
    selections = []
    for scene in planned["test"]:
        captions = captions_of(scene, scene.id, 5)
        assert len(set(captions)) == 5
        selections.append(len({frozenset(read_caption(caption, facts_of(scene))[0]) for caption in captions}))
        assert captions != captions_of(scene, "another key", 5)
        assert captions == captions_of(scene, scene.id, 5)
    assert sum(selections) / len(selections) > 4


def test_articles_and_numbers_are_english(written):
    for _, caption in written:
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|\bone \w+s\b|  ", caption), caption


def test_a_caption_tells_no_name_and_takes_few_words(written):
    words = {word for _, caption in written for word in re.findall(r"\w+", caption.lower())}
    assert len(words) < 60


def test_every_relation_of_two_tiles_is_told_as_it_is():
    """Of all pairs of places: diagonal tiles have two relations, of which a caption tells one."""
    for places in itertools.permutations(FACTS["place"], 2):
        tiles = tuple(
            ColouredTile(kind, colour, count, place, "", (0, 0, 0, 0), ())
            for kind, colour, count, place in zip(
                ("face", "flag"), ("red", "blue"), ("one", "two"), places, strict=True
            )
        )
        scene = TiledScene("-".join(places), (tiles[0], tiles[1]))
        told = {
            fact for text in captions_of(scene, scene.id, 100) for _, fact in read_caption(text, facts_of(scene))[0]
        }
        (row, column), (other_row, other_column) = (place.split() for place in places)
        across = {"to the left of", "to the right of"} if column != other_column else set()
        down = {"above", "below"} if row != other_row else set()
        assert told - {"kind", "count", "colour", "where"} == across | down
