from mmjax.data.datasets.emoji_stories.grammar import StoryEvent
from mmjax.data.datasets.emoji_stories.telling import event_label, sentence, story_text, webvtt
from tests.data.datasets.emoji_stories.made import MET, NAMES


def test_a_sentence_says_who_does_what_to_whom_and_where():
    assert [sentence(event, NAMES) for event in MET.events] == [
        "the goat appears",
        "the rocket appears",
        "the goat moves down",
        "the goat meets the rocket",
        "the goat moves to the left",
        "the rocket grows",
        "the goat shrinks",
        "the goat turns",
        "the rocket moves up",
        "the goat moves to the right",
        "the rocket leaves to the left",
        "the goat leaves to the right",
    ]


def test_a_label_is_short():
    assert [event_label(event, NAMES) for event in MET.events[:5]] == [
        "goat appears",
        "rocket appears",
        "goat moves down",
        "goat meets rocket",
        "goat moves left",
    ]


def test_the_text_is_two_sentences_in_order():
    assert story_text(MET.events[:6], NAMES) == (
        "The goat appears, then the rocket appears, then the goat moves down. "
        "Then the goat meets the rocket and moves to the left, then the rocket grows."
    )
    turning = [
        StoryEvent("appear", 2),
        StoryEvent("grow", 2),
        StoryEvent("turn", 2),
        StoryEvent("leave", 2, way="left"),
    ]
    assert story_text([*turning, turning[0]], NAMES) == (
        "The pear appears, grows and turns. Then the pear leaves to the left and appears."
    )


def test_the_text_tells_the_order_of_events_and_the_roles():
    events = list(MET.events[:4])
    told = {story_text(order, names) for order in (events, events[::-1]) for names in (NAMES, NAMES[1::-1])}
    assert len(told) == 4


def test_subtitles_have_a_cue_a_sentence():
    cues = [("the goat appears", 0.0123, 1.5), ("the pear turns", 62.5, 3_725.0)]
    assert webvtt(cues) == (
        "WEBVTT\n\n00:00:00.012 --> 00:00:01.500\nThe goat appears.\n\n00:01:02.500 --> 01:02:05.000\nThe pear turns.\n"
    )
