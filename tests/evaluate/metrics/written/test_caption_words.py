"""Words of captions against those of the Java tokenizer, which were written down, and against itself where it is."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.evaluate.metrics.written.caption_words import caption_words

# The words that PTBTokenizer of pycocoevalcap 1.2 (stanford-corenlp-3.4.1.jar, Java 17) gave.
SAME = [
    ("A man doesn't see the dogs' bowl.", "a man does n't see the dogs bowl"),
    ("They're sure I'm here: we'd've, he'll, it's", "they 're sure i 'm here we 'd 've he 'll it 's"),
    ("Can't cannot won't gonna 'tis lemme", "ca n't can not wo n't gon na 't is lem me"),
    ("the man's mother-in-law's t-shirt", "the man 's mother-in-law 's t-shirt"),
    ("A black-and-white photo of a 3-year-old boy", "a black-and-white photo of a 3-year-old boy"),
    ("\"Hello,\" he said; 'bye'...", "hello he said bye"),
    ("A dog (brown) [sic] {x}", "a dog -lrb- brown -rrb- -lsb- sic -rsb- -lcb- x -rcb-"),
    ("what?! no!! why? yes!", "what ?! no !! why yes"),
    ("smile :) ;-) =D dog:)", "smile :-rrb- ;--rrb- =d dog :-rrb-"),
    ("St. Louis vs. Mr. Smith of the U.S. at 10:30 p.m.", "st. louis vs. mr. smith of the u.s. at 10:30 p.m."),
    ("the apt. is in. the sat. off", "the apt is in the sat off"),
    ("Miss. a miss. J.R. smith t.v a t.v. tv.", "miss. a miss j.r. smith t.v a t.v. tv"),
    ("No. 5 is no. Five", "no. 5 is no five"),
    (
        "1,000 dogs, 3.5 miles, 1/2 cup, 10:30am, 50% off $1.50",
        "1,000 dogs 3.5 miles 1/2 cup 10:30 am 50 % off $ 1.50",
    ),
    ("his/her dog and a black / white cat", "his/her dog and a black / white cat"),
    ("AT&T and at&t and M&M's", "at&t and at & t and m&m 's"),
    (
        "rock 'n' roll, rock'n'roll, o'clock, o'brien, y'all, d's",
        "rock 'n' roll rock 'n' roll o'clock o'brien y' all d 's",
    ),
    ("don’t, a man’s “red” hat – or … café", "do n't a man 's red hat or café"),
    ("a -- b - c—d", "a b c d"),
    ("#1 #dad @home www.a.com x@y.com file.jpg", "# 1 #dad @home www.a.com x@y.com file.jpg"),
    ("<unk> 3 < 4 &amp; 5", "<unk> 3 < 4 & 5"),
    ("a dog🐕 runs ❤", "a dog runs ❤"),
    ("5'10\" tall in the '90s and 1990's", "5 10 tall in the '90s and 1990 's"),
    ("two dogs,one cat.The end", "two dogs one cat.the end"),
    ("a*b **c** a_b _d_ c++ e#", "a * b ** c ** a_b _ d _ c++ e #"),
    ("-5 +3 .5 5-6 1-1/2", "-5 +3 .5 5-6 1-1/2"),
    ("naïve señor's über hawai'i", "naïve señor 's über hawai'i"),
    ("", ""),
    ("   . , !", ""),
]
# What differs, and stays so: a text, the words of the Java program, and ours.
OTHER = [
    ("^_^", "^_^", "^ _ ^"),
    ("call (555) 123-4567", "call -lrb-555-rrb-\xa0123-4567", "call -lrb- 555 -rrb- 123-4567"),
    ("3 1/2 cups", "3\xa01/2 cups", "3 1/2 cups"),
    ("of size n. A list", "of size n a list", "of size n. a list"),
    ("c'est", "c'est", "c est"),
    ("US$5", "us$ 5", "us $ 5"),
]


@pytest.mark.parametrize(("text", "words"), SAME)
def test_words_are_those_of_the_java_program(text, words):
    assert caption_words(text) == words.split()


@pytest.mark.parametrize(("text", "theirs", "ours"), OTHER)
def test_known_differences(text, theirs, ours):
    assert caption_words(text) == ours.split(" ")
    assert theirs != ours


def test_the_java_program_still_says_so():
    program = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    expected = [*SAME, *((text, theirs) for text, theirs, _ in OTHER)]
    found = program.PTBTokenizer().tokenize({row: [{"caption": text}] for row, (text, _) in enumerate(expected)})
    for row, (text, words) in enumerate(expected):
        assert found.get(row, [""])[0] == words, text


@given(st.text(alphabet="abcs nt'ID.,-/:;0129!?#\"*_@+$%=", max_size=30))
def test_no_letter_or_digit_is_lost(text):
    words = caption_words(text)
    assert [mark for word in words for mark in word if mark.isalnum()] == [m for m in text.lower() if m.isalnum()]
    assert all(word and word == word.lower() and not word.isspace() and word not in [*"'.,-:;!?"] for word in words)
