import itertools
from collections import Counter

import pytest

from mmjax.data.datasets.asked_emoji.things import colourless_things
from mmjax.data.datasets.tagged_emoji.builder import TaggedConfig
from mmjax.data.datasets.tagged_emoji.kinds import EMOJI_TAGS, KINDS, named_kind, tagged
from mmjax.data.datasets.tagged_emoji.sentences import FORMS, NONCES, planned_sentences
from mmjax.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def everything():
    return {thing.id: thing for thing in colourless_things()}


def spans(sentence):
    """The named things: their words and their kind, in order."""
    found: list[tuple[list[str], str]] = []
    for word, tag in zip(sentence.words, sentence.tags, strict=True):
        if tag.startswith("B-"):
            found.append(([word], tag[2:]))
        elif tag.startswith("I-"):
            assert found[-1][1] == tag[2:]
            found[-1][0].append(word)
    return [(" ".join(words), kind) for words, kind in found]


def test_the_tags_of_a_name():
    assert EMOJI_TAGS[:3] == ("O", "B-NATURE", "I-NATURE")
    assert len(EMOJI_TAGS) == 1 + 2 * len(KINDS) == len(set(EMOJI_TAGS))
    assert tagged("red apple", "FOOD") == [("red", "B-FOOD"), ("apple", "I-FOOD")]
    assert (named_kind("plant"), named_kind("symbol")) == ("NATURE", None)


def test_a_sentence_names_one_thing_that_is_not_seen_and_hides_one_that_is(planned, everything):
    for split in SPLITS:
        for sentence in planned[split]:
            names = spans(sentence)
            assert len(names) == 2
            hidden = [place for place, (name, _) in enumerate(names) if name in NONCES]
            assert len(hidden) == 1
            assert names[hidden[0]][1] == sentence.kind == named_kind(everything[sentence.emoji].word)
            name, kind = names[1 - hidden[0]]
            assert kind == sentence.other
            assert any(each.name == name and named_kind(each.word) == kind for each in everything.values())
            assert everything[sentence.emoji].name != name
            text = " ".join(sentence.words)
            assert sentence.form.replace("…", name) == text
            assert sentence.form.replace(names[hidden[0]][0], "…", 1) in FORMS
            assert set(sentence.tags) <= set(EMOJI_TAGS)


def test_nonce_names_and_forms_share_no_word_with_names(everything):
    words = {word for thing in everything.values() if named_kind(thing.word) for word in thing.name.split()}
    assert not words & {word for nonce in NONCES for word in nonce.split()}
    assert all(form.split().count("…") == 2 for form in FORMS)


def test_every_sentence_stands_beside_an_emoji_of_each_kind(planned):
    for split, count in TaggedConfig(name="all").sentences.items():
        rows = planned[split]
        assert len(rows) == count * len(KINDS)
        for group in (rows[place : place + len(KINDS)] for place in range(0, len(rows), len(KINDS))):
            assert len({each.words for each in group}) == len({each.other for each in group}) == 1
            assert [each.kind for each in group] == list(KINDS)


def test_all_forms_nonce_names_orders_and_kinds_occur(planned):
    rows = planned["train"]
    nonces = Counter(name for each in rows for name, _ in spans(each) if name in NONCES)
    assert set(nonces) == set(NONCES)
    assert min(nonces.values()) > 0.08 * len(rows)
    first = sum(spans(each)[0][0] in NONCES for each in rows)
    assert 0.45 < first / len(rows) < 0.55
    assert {each.form.replace(nonce, "…") for each in rows for nonce in NONCES if nonce in each.form} >= set(FORMS)
    assert Counter(each.other for each in rows) == dict.fromkeys(KINDS, len(rows) // len(KINDS))


def test_splits_share_no_emoji_and_no_name(planned, everything):
    shown = {split: {each.emoji for each in planned[split]} for split in SPLITS}
    named = {
        split: {name for each in planned[split] for name, _ in spans(each) if name not in NONCES} for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not shown[one] & shown[other]
        assert not named[one] & named[other]
    assert {everything[emoji].split for emoji in shown["test"]} == {"test"}
    assert len(shown["train"]) > 600
    assert len(named["train"]) > 500


def test_too_few_emoji_are_told():
    with pytest.raises(UserError, match=r"the split 'validation' has [01] emoji of the kind FOOD, .*: raise limit"):
        planned_sentences({"validation": 5}, limit=1)
