import dataclasses

import pytest

from mmjax.data.datasets.tagged_emoji.kinds import KINDS
from mmjax.data.datasets.tagged_emoji.sentences import Sentence
from mmjax.data.datasets.tagged_emoji.shortcuts import SHORTCUTS, check_kinds_told, kinds_told
from mmjax.errors import UserError


@pytest.mark.parametrize("known", SHORTCUTS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_neither_words_nor_picture_alone_tell_both_kinds(planned, split, known):
    wanted = pytest.approx(0.225, abs=0.025) if known == "picture" else pytest.approx(1 / len(KINDS))
    assert kinds_told(planned[split], known) == wanted


def sentence(kind: str, other: str) -> Sentence:
    return Sentence(f"{kind}-1", kind, other, "a dax , a …", ("a", "dax", ",", "a", other.lower()), ("O",) * 5)


FAIR = [sentence(kind, other) for kind in KINDS for other in KINDS]
SPOILT = {  # by one thing alone
    "words": [dataclasses.replace(each, words=(each.kind, each.other)) for each in FAIR],
    "form": [dataclasses.replace(each, form=each.kind) for each in FAIR],
    "picture": [dataclasses.replace(each, emoji=f"{each.kind} of {each.other}") for each in FAIR],
}


def test_the_best_guess_is_counted():
    assert kinds_told(FAIR, "words") == kinds_told(FAIR, "picture") == pytest.approx(0.2)
    more = [*FAIR, sentence("FOOD", "TRAVEL")]
    assert kinds_told(more, "words") == kinds_told(more, "picture") == pytest.approx(6 / 26)
    assert kinds_told(more, "kind of the picture") == pytest.approx(6 / 26)
    assert kinds_told(SPOILT["words"], "words") == kinds_told(SPOILT["picture"], "picture") == 1.0


@pytest.mark.parametrize("known", ["words", "form", "picture"])
def test_each_shortcut_is_told(known):
    check_kinds_told({"train": FAIR, "test": FAIR})
    with pytest.raises(
        UserError, match=rf"the {known} alone tells .* in 1\.000 of the sentences of 'test', and may tell"
    ):
        check_kinds_told({"train": FAIR, "test": SPOILT[known]})


def test_kinds_that_go_together_are_told():
    """Of the hidden thing with the named one, and back."""
    together = [dataclasses.replace(sentence(kind, kind), emoji="one", words=("a", "dax")) for kind in KINDS]
    for known in ("kind of the other name", "kind of the picture"):
        assert kinds_told(together, known) == 1.0
    with pytest.raises(UserError, match=r"the kind of the other name alone tells the kind of the nonce name in 1\.000"):
        check_kinds_told({"test": together})
