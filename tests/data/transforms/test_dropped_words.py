import pytest

from mmjax.data import BadExample, DropWords

DROP = DropWords(("the", "to"))


def test_words_go_whatever_their_case_with_their_punctuation():
    assert DROP("The goat moves  to the left.", None) == "goat moves left."
    assert DROP('goat, "The," meets then to.', None) == "goat, meets then"
    assert DROP("Theatre together", None) == "Theatre together"


@pytest.mark.parametrize(("text", "kind"), [("", "empty"), ("The to the", "empty"), (3, "undecodable")])
def test_nothing_that_is_left_is_a_bad_example(text, kind):
    with pytest.raises(BadExample) as error:
        DROP(text, None)
    assert error.value.kind == kind
