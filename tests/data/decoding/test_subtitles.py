"""Words and times of subtitles, by hand-written files of each format."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord, timed_cues, timed_words, words_between

VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE a remark
over two lines

1
00:01.000 --> 00:03.000 align:start position:0%
<v Ann>Hello, <i>dear</i></v>

intro
01:00:04.000 --> 01:00:06.000
AT&amp;T<01:00:05.000><c.loud> and</c>&nbsp;us
"""
SRT = """1
00:00:01,000 --> 00:00:02,000
<font color="red">ab</font> cdef

2
00:00:03.500 --> 00:00:04.500
{\\an8}x
y
00:00:05,000 --> 00:00:06,000
w <3 z
"""
# As YouTube writes them: each cue begins with the line before, which is first shown alone for a moment.
ROLLING = """WEBVTT

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
we<00:00:00.500><c> are</c><00:00:01.000><c> here</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
we are here
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
we are here
we<00:00:03.000><c> are</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
we are
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
we are
no<00:00:05.000><c> no</c>
"""  # noqa: W293


def rounded(found):
    return [(word.text, round(word.start, 6), round(word.end, 6)) for word in found.words]


def test_webvtt():
    found = timed_words(VTT.encode())
    assert rounded(found) == [
        ("Hello,", 1.0, 2.2),  # six of ten letters
        ("dear", 2.2, 3.0),
        ("AT&T", 3604.0, 3605.0),
        ("and", 3605.0, 3605.6),
        ("us", 3605.6, 3606.0),
    ]
    assert (found.encoding, found.guessed, found.skipped) == ("utf-8", False, 0)
    assert timed_words(VTT).words == found.words
    assert timed_words(VTT).encoding == "str"


def test_a_word_may_be_timed_in_syllables():
    found = timed_words("WEBVTT\n00:01.000 --> 00:03.000\nHel<00:01.500>lo<00:02.000> you")
    assert rounded(found) == [("Hello", 1.0, 2.0), ("you", 2.0, 3.0)]


def test_inner_times_that_go_back_or_leave_the_cue_are_of_no_use():
    text = "WEBVTT\n\n00:01.000 --> 00:03.000\naa<00:00.500> bb<00:02.000> cc<00:01.500> dd<00:09.000> ee"
    assert rounded(timed_words(text)) == [
        ("aa", 1.0, 1.5),
        ("bb", 1.5, 2.0),
        *[(word, round(2 + i / 3, 6), round(2 + (i + 1) / 3, 6)) for i, word in enumerate(("cc", "dd", "ee"))],
    ]


def test_srt():
    found = timed_words(SRT)
    assert rounded(found) == [
        ("ab", 1.0, round(1 + 1 / 3, 6)),
        ("cdef", round(1 + 1 / 3, 6), 2.0),
        ("x", 3.5, 4.0),
        ("y", 4.0, 4.5),
        ("w", 5.0, 5.25),
        ("<3", 5.25, 5.75),
        ("z", 5.75, 6.0),
    ]
    assert found.skipped == 0


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_and_a_last_number_without_an_empty_line(end):
    text = SRT.replace("\ny\n", "\ny\n3\n")
    assert rounded(timed_words(text.replace("\n", end))) == rounded(timed_words(SRT))


def test_srt_without_numbers_and_with_shorter_times():
    text = "00:01 --> 00:02\na\n\n00:03,5 --> 00:04,25\nb\n"
    assert rounded(timed_words(text)) == [("a", 1.0, 2.0), ("b", 3.5, 4.25)]


def test_cues_that_overlap_or_come_in_another_order():
    text = "00:05,000 --> 00:06,000\nd\n\n00:01,000 --> 00:04,000\na c\n\n00:02,000 --> 00:03,000\nb\n"
    assert rounded(timed_words(text)) == [("a", 1.0, 2.5), ("b", 2.0, 3.0), ("c", 2.5, 4.0), ("d", 5.0, 6.0)]


def test_what_is_broken_is_skipped_and_counted():
    text = (
        "a stray line\nanother\n\n1\n00:00:02,000 --> 00:00:01,000\nback\n\n2\n00:00:xx,000 --> 00:00:05,000\nx\n\n"
        "3\n00:00:05,000 --> 00:00:05,000\nat once\n\nan end\n"
    )
    found = timed_words(text)
    assert rounded(found) == [("at", 5.0, 5.0), ("once", 5.0, 5.0)]
    assert found.skipped == 5


def test_rolling_captions_give_each_word_once():
    words = [("we", 0.0), ("are", 0.5), ("here", 1.0), ("we", 2.01), ("are", 3.0), ("no", 4.01), ("no", 5.0)]
    assert [word[:2] for word in rounded(timed_words(ROLLING))] == words
    later = timed_words(ROLLING + "\n00:10.000 --> 00:11.000\nno no\n")  # it is said again
    assert [word[:2] for word in rounded(later)] == [*words, ("no", 10.0), ("no", 10.5)]


def test_captions_that_scroll_by_a_line():
    lines = ["one two", "three", "four", "five six"]
    cues = [f"00:0{i}.000 --> 00:0{i + 1}.000\n{lines[i]}\n{lines[i + 1]}\n" for i in range(3)]
    found = timed_words("WEBVTT\n\n" + "\n".join(cues))
    assert [word.text for word in found.words] == ["one", "two", "three", "four", "five", "six"]


def test_somebody_says_a_word_twice():
    for gap in (0, 1):
        text = (
            f"00:01,000 --> 00:02,000\nNo.\n\n00:0{2 + gap},000 --> 00:04,000\nNo.\n\n00:05,000 --> 00:06,000\nYes.\n"
        )
        assert [word.text for word in timed_words(text).words] == ["No.", "No.", "Yes."]


def test_one_repeated_line_among_others_is_no_rolling():
    spoken = ["a", "b", "b\nc", "d", "e", "f"]
    text = "\n".join(f"00:0{i},000 --> 00:0{i + 1},000\n{line}\n" for i, line in enumerate(spoken))
    assert [word.text for word in timed_words(text).words] == ["a", "b", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("key", ["word", "text"])
@pytest.mark.parametrize("whisper", [False, True])
def test_json(key, whisper):
    entries = [
        {key: " there", "start": 1, "end": 1.5, "probability": 0.9},
        {key: "Hello", "start": 0.25, "end": 0.75},
        {key: "1999"},
        {key: "x", "start": 3, "end": 2},
        {key: "x", "start": float("nan"), "end": 2},
        {key: "x", "start": 1, "end": 10**400},
        {key: "x", "start": True, "end": 2},
        {key: None, "start": 1, "end": 2},
        "x",
    ]
    given = {"text": "Hello there", "segments": [{"words": entries}, {"id": 1}]} if whisper else entries
    found = timed_words(json.dumps(given).encode())
    assert found.words == [TimedWord("Hello", 0.25, 0.75), TimedWord("there", 1.0, 1.5)]
    assert found.skipped == 7 + whisper


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"chunks": [], "text": "a"}, r"JSON with the keys chunks, text: give a list of"),
        ({"segments": [{"start": 0, "text": "a"}]}, r'segments have no "words", but the keys start, text: .*Whisper'),
        ([{"token": "a", "start": 0, "end": 1}], r'no "word" or "text", but the keys end, start, token'),
        ([1, 2], "but no keys"),
    ],
)
def test_json_of_another_form_is_refused_with_its_keys(given, message):
    with pytest.raises(BadExample, match=message) as bad:
        timed_words(json.dumps(given))
    assert bad.value.kind == "undecodable"


@pytest.mark.parametrize(
    ("coding", "name", "guessed"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16", False),
        ("cp1252", "windows-1252", True),
    ],
)
@pytest.mark.parametrize("header", ["", "WEBVTT\n\n"])
def test_encodings(coding, name, guessed, header):
    found = timed_words(f"{header}00:01.000 --> 00:02.000\nà l’été\n".encode(coding))
    assert [word.text for word in found.words] == ["à", "l’été"]
    assert (found.encoding, found.guessed) == (name, guessed)


def test_big_endian_utf_16():
    content = b"\xfe\xff" + "00:01.000 --> 00:02.000\né\n".encode("utf-16-be")
    assert rounded(timed_words(content)) == [("é", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", "empty", "are empty"),
        (b"\xef\xbb\xbf \n\n", "empty", "are empty"),
        (b"WEBVTT\n\nNOTE nothing\n", "empty", r"hold no word \(0 "),
        (b"1\n00:00:02,000 --> 00:00:01,000\na\n", "empty", r"hold no word \(1 "),
        (b"[]", "empty", "hold no word"),
        (b"just a text", "undecodable", "neither WebVTT nor SRT nor JSON: they begin with 'just a text'"),
        (b"[1, ", "undecodable", "begin as JSON, and are none"),
        (b"[" * 100_000, "undecodable", "begin as JSON, and are none"),
        ("00:01 --> 00:02\na".encode("utf-16-le"), "undecodable", "NUL bytes"),
        (b"\xff\xfea\x00\x00\xd8", "undecodable", "UTF-16"),
    ],
)
def test_what_holds_no_words(content, kind, message):
    with pytest.raises(BadExample, match=message) as bad:
        timed_words(content)
    assert bad.value.kind == kind


times = st.floats(0, 100)
spans = st.tuples(times, times).map(sorted)


@given(spans=st.lists(spans, max_size=12), cuts=st.lists(times, max_size=6))
def test_windows_that_tile_a_video_have_each_word_once(spans, cuts):
    words = [TimedWord(str(i), start, end) for i, (start, end) in enumerate(spans)]
    edges = [0.0, *sorted(cuts), 101.0]
    found = []
    for start, end in itertools.pairwise(edges):
        for word in words_between(words, start, end):
            assert 0 <= word.start <= word.end <= end - start
            middle = (words[int(word.text)].start + words[int(word.text)].end) / 2
            assert start <= middle < end
            found.append(word.text)
    assert sorted(found) == sorted(word.text for word in words)


def test_a_word_is_shifted_to_its_window_and_cut_off_there():
    words = [TimedWord("a", 9.0, 10.5), TimedWord("b", 9.5, 11.5), TimedWord("c", 11.5, 12.5)]
    assert words_between(words, 10.0, 12.0) == [TimedWord("b", 0.0, 1.5)]
    assert words_between(words, 12.0, 13.0) == [TimedWord("c", 0.0, 0.5)]


@given(
    lines=st.lists(
        st.sampled_from(
            ["", " ", "1", "WEBVTT", "NOTE x", "00:01.000 --> 00:02.000", "00:00:03,000 --> 00:00:02,000", "-->", "a b",
             "a<00:01.500> b", "<c>", "&amp;", "[", "{"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_lines_give_words_in_order_or_are_refused(lines):
    try:
        found = timed_words("\n".join(lines))
    except BadExample:
        return
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert all(word.start <= word.end and word.text.strip() == word.text != "" for word in found.words)


def test_cues_are_sentences_with_their_times() -> None:
    vtt = "WEBVTT\n\n00:03.000 --> 00:04.000\n<i>Two</i> lines\nof it\n\n00:01.000 --> 00:02.500\nFirst &amp; last\n"
    assert timed_cues(vtt + "\n00:05.000 --> 00:06.000\n<b></b>\n") == [
        TimedWord("First & last", 1.0, 2.5),
        TimedWord("Two lines of it", 3.0, 4.0),
    ]
    assert timed_cues(b"1\r\n00:00:01,500 --> 00:00:02,000\r\nHi\r\n") == [TimedWord("Hi", 1.5, 2.0)]


def test_cues_of_rolling_captions_say_each_line_once() -> None:
    lines = ["one two", "three four", "five six", "seven"]
    cues = [lines[max(0, n - 1) : n + 1] for n in range(4)]
    body = [f"00:0{n}.000 --> 00:0{n + 1}.000\n" + "\n".join(cue) for n, cue in enumerate(cues)]
    assert [cue.text for cue in timed_cues("WEBVTT\n\n" + "\n\n".join(body) + "\n")] == lines


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("[]", "undecodable"),
        ("words", "undecodable"),
        ("WEBVTT\n", "empty"),
        ("WEBVTT\n\n00:02.000 --> 00:01.000\nx\n", "empty"),
    ],
)
def test_what_has_no_cue_is_a_bad_example(content: str, kind: str) -> None:
    with pytest.raises(BadExample) as error:
        timed_cues(content)
    assert error.value.kind == kind
