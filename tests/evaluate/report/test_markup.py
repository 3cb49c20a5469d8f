"""Text is escaped, markup is not; names and values of attributes."""

from mmjax.evaluate.report.markup import Markup, join, short, tag


def test_text_is_escaped_wherever_it_stands():
    attack = "<b onclick='x'>&\"</b>"
    made = tag("p", attack, [attack, None], title=attack)
    assert made.count("<") == 2  # the paragraph's own
    assert "'" not in made
    assert made.count('"') == 2  # around the attribute
    assert tag("p", tag("b", "x")) == "<p><b>x</b></p>"


def test_attributes():
    assert tag("input", type_="radio", checked=True, disabled=False, value=None, data_tip="a") == (
        '<input type="radio" checked data-tip="a">'
    )
    assert tag("rect", x=1.0, y=2 / 3) == '<rect x="1" y="0.67"></rect>'


def test_markup_stays_and_its_pieces_do_not_make_more_of_it():
    assert join(Markup("<i>"), "<i>") == "<i>&lt;i&gt;"
    assert type(Markup("<i>") + "x") is str  # what was put together by hand is text again
    assert join(Markup("<i>") + "x") == "&lt;i&gt;x"


def test_what_would_turn_the_text_around_it_is_shown_instead():
    assert tag("p", "a\u202eb\x00") == "<p>a\ufffdb\ufffd</p>"


def test_short():
    assert short("a  b\nc") == "a b c"
    assert short("abcdef", 4) == "abc…"
