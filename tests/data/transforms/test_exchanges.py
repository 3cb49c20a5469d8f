"""Parts of conversations: what is heard of one, what is drawn, and which answers are learnt."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.chat_templates import ChatTemplate
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.dialogue import Dialogue, dialogue_of
from mmjax.data.transforms.exchanges import DrawExchange, PredictAnswers, heard_dialogue, media_entry
from mmjax.errors import UserError

SOUND = {"type": "audio"}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": [SOUND]},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": [{"type": "text", "text": "and"}, SOUND]},
    {"role": "assistant", "content": "blue"},
]


def shown(dialogue: Dialogue) -> list[list[Any]]:
    return [[p if isinstance(p, str) else media_entry(p) for p in turn.parts] for turn in dialogue.turns]


def test_a_question_is_heard_with_what_was_said_before_it_and_not_after() -> None:
    whole = dialogue_of(MESSAGES)
    for end, unseen in ((2, ["audio", "audio_2"]), (4, ["audio_2"]), (6, [])):
        found = heard_dialogue(whole, end)
        assert shown(found.dialogue) == shown(whole)[:end]
        assert [media_entry(each) for each in found.unseen] == unseen


@pytest.mark.parametrize(("history", "said"), [(0, ["image", "and", "audio_2"]), (1, ["image", "audio"])])
def test_without_history_sounds_of_earlier_turns_are_not_heard_and_pictures_are_seen(history: int, said: Any) -> None:
    found = heard_dialogue(dialogue_of(MESSAGES), 6, history)
    assert [turn.role for turn in found.dialogue.turns] == ["system", "user", "assistant", "user"][: 2 + 2 * history]
    assert shown(found.dialogue)[1] == said
    assert [media_entry(each) for each in found.unseen] == (["audio"] if history == 0 else [])


def test_the_exchange_is_drawn_by_the_weights_and_its_media_alone_stay() -> None:
    record = {
        "text": dialogue_of(MESSAGES),
        "audio": b"1",
        "audio_2": b"2",
        "image": b"3",
        "hard": [False, True, False],
    }
    drawing, drawn = DrawExchange(hard=3.0, needs="hard"), Counter()
    for seed in range(600):
        found = drawing(dict(record), np.random.default_rng(seed))
        last = shown(found["text"])[-1][0]
        drawn[last] += 1
        kept = {name for name in ("image", "audio", "audio_2") if found[name] is not None}
        assert kept == {"two": {"image"}, "red": {"image", "audio"}, "blue": {"image", "audio_2"}}[last]
        assert len(found["text"].turns) == 3
    for word, share in (("two", 0.2), ("red", 0.6), ("blue", 0.2)):
        assert abs(drawn[word] / 600 - share) < 4 * np.sqrt(share * (1 - share) / 600)
    again = drawing(dict(record), np.random.default_rng(5))
    assert shown(again["text"]) == shown(drawing(dict(record), np.random.default_rng(5))["text"])
    assert shown(drawing(dict(record), None)["text"])[-1] == ["blue"]
    everything = DrawExchange(history=None)(dict(record), None)
    assert shown(everything["text"]) == shown(record["text"])
    assert everything["audio"] == b"1"
    assert drawing({"text": None}, None) == {"text": None}


def test_hard_answers_are_always_learnt_and_easy_ones_at_their_rate() -> None:
    record = {"text": dialogue_of(MESSAGES), "hard": np.array([False, True, False])}
    learnt = np.zeros(3)
    for seed in range(600):
        turns = PredictAnswers(0.25, "hard")(dict(record), np.random.default_rng(seed))["text"].turns
        learnt += [turn.predicted for turn in turns if turn.role == "assistant"]
    assert learnt[1] == 600
    assert np.all(np.abs(learnt[[0, 2]] / 600 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 600))
    in_evaluation = PredictAnswers(0.0, "hard")(dict(record), None)["text"].turns
    assert all(turn.predicted for turn in in_evaluation)
    bare = PredictAnswers(0.0, "hard")({**record, "hard": [False] * 3}, np.random.default_rng(0))["text"].turns
    assert [turn.predicted for turn in bare if turn.role == "assistant"] == [False, False, True]
    by_place = PredictAnswers(0.0)(dict(record), np.random.default_rng(0))["text"].turns
    assert [turn.predicted for turn in by_place if turn.role == "assistant"] == [False, True, True]


def test_answers_that_are_not_predicted_have_no_loss_and_stay_words() -> None:
    cut = TokenizeConversation(PieceTokenizer(SentencePiece(40).train(["be short what two red and blue"] * 9)), 40)
    turns = list(dialogue_of(MESSAGES).turns)
    whole = cut(Dialogue(turns), None)
    turns[2] = turns[2]._replace(predicted=False)
    part = cut(Dialogue(turns), None)
    ids = np.asarray(whole.value[0])
    assert np.array_equal(ids, part.value[0])
    left = whole.labels["loss"] & ~part.labels["loss"]
    assert ids[left].tolist() == cut.answer("two")
    assert not np.any(part.labels["loss"] & ~whole.labels["loss"])


@pytest.mark.parametrize(
    "template",
    ["plain", "vicuna_v1", ChatTemplate(user=("Q: ", " "), assistant=("A: ", " |"), system=("", " "), between="-")],
)
def test_an_answer_alone_has_the_ids_that_it_has_in_a_conversation(template: Any) -> None:
    lines = ["Q: what? A: two red | - USER: ASSISTANT: be short and blue"] * 9
    cut = TokenizeConversation(PieceTokenizer(SentencePiece(60).train(lines)), 400, template=template, answers="last")
    for end, words in ((3, "two"), (5, "red"), (7, "blue")):
        found = cut(MESSAGES[:end], None)
        ids = np.asarray(found.value[0])
        assert ids[found.labels["loss"]].tolist() == cut.answer(words)


def test_bad_fields_and_columns() -> None:
    with pytest.raises(UserError, match=r"DrawExchange\(history=-1, hard=1.0\)"):
        DrawExchange(history=-1)
    with pytest.raises(UserError, match="hard=0"):
        DrawExchange(hard=0)
    with pytest.raises(UserError, match=r"PredictAnswers\(easy=1.5\)"):
        PredictAnswers(1.5)
    with pytest.raises(BadExample, match="'hard' tells of 2 answers, and the conversation has 3"):
        PredictAnswers(needs="hard")({"text": dialogue_of(MESSAGES), "hard": [True, False]}, np.random.default_rng(0))
