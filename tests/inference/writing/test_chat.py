"""A conversation's answers are those of a decoder that reads all turns anew, and a turn costs its own tokens alone."""

import copy
from typing import Any

import numpy as np
import pytest

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.evaluate.writing.read_so_far import sizes
from mmjax.inference.model import Model
from mmjax.inference.writing.chat import Chat
from tests.evaluate.writing.dense import dense_greedy
from tests.inference.writing.writing_models import captions, language, made, talking

DRAWN: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 9}


@pytest.fixture(scope="module")
def talker(tokenizer: PieceTokenizer) -> Model:
    return talking(language.as_buildable(), tokenizer)


@pytest.fixture(scope="module")
def viewer(tokenizer: PieceTokenizer) -> Model:
    """A model of two pictures, whose tokens stand within the text."""
    config = captions.as_buildable()
    config.towers["image_2"] = copy.deepcopy(config.towers["image"])
    config.data.transforms["image_2"] = copy.deepcopy(config.data.transforms["image"])
    part = config.objectives["caption"]
    part.reads, part.alone = ("image", "image_2"), True
    part.decoder.cross, part.decoder.context = "none", {}
    part.decoder.inserted = dict.fromkeys(part.reads)
    return talking(config, tokenizer, slots=dict.fromkeys(part.reads, 4))


def dense(model: Model, chat: Chat, most: int, views: Any = None) -> list[int]:
    """The likeliest words behind the user's last turn, by passes over all of it."""
    prompts = model.generation().prompts
    part = model.experiment.objectives["caption"]
    turns = chat.messages[:-1] if chat.messages[-1]["role"] == "assistant" else chat.messages
    ids = prompts.conversation(turns, None).prompt.ids
    params = model.params["objectives_caption"]["decoder"]
    return dense_greedy(part.decoder, params, ids, most, prompts.eos, views, prompts.tokenizer.vocab_size)[0]


def test_whatever_was_written_before_an_answer_is_that_of_all_turns_read_anew(talker: Model) -> None:
    chat = talker.chat([{"role": "system", "content": "the cat"}])
    spoken: list[dict[str, Any]] = [
        DRAWN,
        {"max_new_tokens": 3},
        DRAWN | {"seed": 4},
        DRAWN | {"stop": ("e", "a")},
        DRAWN | {"seed": 2},
    ]
    for place, options in enumerate(spoken):
        drawn = chat.say("the dog", details=True, **options)
        again = chat.copy()
        found = again.say(f"a {'big ' * place}ball", details=True, max_new_tokens=5)
        assert list(found.ids) == dense(talker, again, 5)
        if "stop" in options:
            assert drawn.ending == "stop"
            assert not {"e", "a"} & {*drawn.text}
    assert [message["role"] for message in chat.messages] == ["system", *["user", "assistant"] * len(spoken)]


def test_an_answer_without_a_word_is_no_turn(talker: Model) -> None:
    chat = talker.chat()
    first = chat.copy().say("the dog", max_new_tokens=5)[0]
    assert chat.say("the dog", stop=first, max_new_tokens=5) == ""
    assert list(chat.stream("the dog", stop=chat.copy().say("the dog", max_new_tokens=5)[0], max_new_tokens=5)) == []
    assert [message["role"] for message in chat.messages] == ["user", "user"]
    found = chat.say("a ball", max_new_tokens=5, details=True)
    assert list(found.ids) == dense(talker, chat, 5)


def test_a_turn_costs_its_own_tokens(talker: Model) -> None:
    """And, where the tokenizer cuts an answer in another way than it was written, that answer's."""
    chat, own = talker.chat(), "the dog and the cat and the dog"
    prompts = talker.generation().prompts
    for turn in range(3):
        before = prompts.conversation(chat.messages, None).prompt.ids if turn else []
        written = chat.say(own, max_new_tokens=3, details=True)
        assert list(written.ids) == dense(talker, chat, 3)
        whole = prompts.conversation(chat.messages[:-1], None).prompt.ids
    answer = chat.messages[-3]["content"]
    cost, alone = sum(chat._read.passed), len(whole) - len(before) + len(prompts.pieces(answer)) + 1
    assert len(whole) > 2.5 * alone
    assert cost <= 1.1 * alone + 7


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17, 33, 70, 100, 129, 1000, 1023, 1025])
def test_sizes_are_powers_of_two_and_hardly_more_than_there_are(count: int) -> None:
    found = sizes(count)
    assert all(size >= 8 and size & (size - 1) == 0 for size in found)
    assert count <= sum(found) <= count + max(7, count // 10)
    assert found == sorted(found, reverse=True)


def test_a_conversation_that_is_too_long_loses_its_oldest_exchanges_with_a_warning(talker: Model) -> None:
    chat = talker.chat()
    said = [chat.say("the dog and the cat roll", max_new_tokens=5) for _ in range(2)]
    told = r"has \d+ tokens.*made has room for fewer: of its oldest exchanges [12] are left"
    with pytest.warns(UserWarning, match=told):  # noqa: PT031 (at the turn that is too long)
        while not chat._left_out:
            said.append(chat.say("the dog and the cat roll " * 2, max_new_tokens=5))
    last = chat.copy()
    found = last.say("a ball", max_new_tokens=5, details=True)
    assert list(found.ids) == dense(talker, last, 5)
    assert len(last.messages) == 2 * len(said) + 2
    before = chat.messages
    with pytest.raises(UserError, match=r"takes \d+ tokens.*there is room for 192: \d+ are too many"):
        chat.say("the dog " * 120)
    assert chat.messages == before
    with pytest.warns(UserWarning, match="cut off after [0-9]+ tokens: made has no positions for more"):
        talker.chat().say("the dog", max_new_tokens=300)


def test_a_stream_is_the_answer_and_may_be_broken_off(talker: Model) -> None:
    chat = talker.chat()
    chat.say("the dog", **DRAWN)
    other = chat.copy()
    pieces = list(other.stream("a cat", **DRAWN))
    assert len(pieces) > 2
    assert "".join(pieces) == chat.copy().say("a cat", **DRAWN)
    assert other.messages[-1] == {"role": "assistant", "content": "".join(pieces)}
    cut = chat.copy()
    going = cut.stream("a cat", **DRAWN)
    first = next(going)
    going.close()
    assert cut.messages[-1]["content"].startswith(first)
    assert cut.messages[-1]["content"] in "".join(pieces)
    assert len(cut.messages) == len(other.messages)
    found = cut.say("a ball", max_new_tokens=5, details=True)
    assert list(found.ids) == dense(talker, cut, 5)


def test_an_exchange_is_taken_back(talker: Model) -> None:
    chat = talker.chat([{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "rolls"}])
    before = chat.messages
    first = chat.say("a cat", **DRAWN)
    chat.undo()
    assert chat.messages == before
    assert chat.say("a cat", **DRAWN) == first
    chat.undo()
    chat.undo()
    assert chat.messages == []
    with pytest.raises(UserError, match="nothing was said yet"):
        chat.undo()


def test_pictures_beside_the_text_are_read_in_any_turn(onlooker: Model, pictures: np.ndarray) -> None:
    generation = onlooker.generation()
    seen = [generation.views([generation.views.row({"image": one}, None)]) for one in pictures]
    chat = onlooker.chat()
    chat.say("the dog", max_new_tokens=5)
    answers = set()
    for picture, views in zip(pictures, seen, strict=True):
        chat.say("a cat", image=picture, max_new_tokens=5)
        assert chat.messages[2]["content"][0]["image"] is picture
        other = chat.copy()
        found = other.say("and the ball", max_new_tokens=5, details=True)
        assert sum(other._read.passed) <= 24
        assert list(found.ids) == dense(onlooker, other, 5, views)
        answers.add(found.log_probabilities.tobytes())
        with pytest.raises(UserError, match="the conversation has 2 of image, and made reads 1: begin another one"):
            other.say("this?", image=picture)
        chat.undo()  # the next picture takes its place
    assert len(answers) > 1


def test_pictures_within_the_text_stand_in_any_turn(viewer: Model, pictures: np.ndarray) -> None:
    def bare(message: dict[str, Any]) -> dict[str, Any]:
        content = message["content"]
        content = content if isinstance(content, str) else [{**part, "image": None} for part in content]
        return message | {"content": content}

    def same(chat: Chat, text: str, *shown: np.ndarray, image: Any = None) -> int:
        """The tokens that a turn costs, whose answer is that of all turns read anew, and is told by the pictures."""
        found = chat.say(text, image=image, max_new_tokens=5, details=True)
        turns = list(map(bare, chat.messages[:-1]))
        given: dict[str, Any] = {name: [one] for name, one in zip(("image", "image_2"), shown, strict=False)}
        (whole,) = viewer.generate([turns], max_new_tokens=5, details=True, **given)
        assert found.ids == whole.ids
        np.testing.assert_allclose(found.log_probabilities, whole.log_probabilities, atol=2e-4)
        return sum(chat._read.passed)

    first, second, third = pictures
    chat = viewer.chat()
    same(chat, "the dog and the cat", first, image=first)
    assert same(chat, "a cat", first) <= 16
    assert same(chat, "and this?", first, second, image=[second]) <= 24
    with pytest.raises(UserError, match="the conversation has 3 of image, and made reads 2: begin another one"):
        chat.say("this?", image=third)
    assert same(chat, "the ball", first, second) <= 16
    before = chat.copy().say("a", max_new_tokens=5, details=True).log_probabilities
    chat.undo()
    chat.undo()
    assert same(chat, "and this?", first, third, image=third) <= 24
    same(chat, "the ball", first, third)
    assert np.abs(chat.say("a", max_new_tokens=5, details=True).log_probabilities - before).max() > 1e-3


def test_what_cannot_be_said_is_named(talker: Model, onlooker: Model, tokenizer: PieceTokenizer) -> None:
    chat = talker.chat()

    def refused(message: str, text: Any = "a dog", **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            chat.say(text, **options)
        with pytest.raises(UserError, match=message):
            chat.stream(text, **options)
        assert chat.messages == []

    refused("an empty turn", " ")
    refused("5.: a turn is a text", 5)
    refused("max_new_tokens=0 must be", max_new_tokens=0)
    refused("temperature=-1", temperature=-1)
    refused("was given 'image', but the inputs that made reads are none", image=np.zeros((4, 4, 3), np.uint8))
    refused("was given 'colour'", colour="red")
    with pytest.raises(UserError, match="messages: turn 0 has the role 'bot', which is none of system, user"):
        talker.chat([{"role": "bot", "content": "hello"}])
    shown = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    with pytest.raises(UserError, match="messages name image 1, and hold none"):
        onlooker.chat(shown)
    with pytest.raises(UserError, match="the conversation has 1 of image, and made reads none"):
        talker.chat(shown)
    with pytest.raises(UserError, match=r"there is no file nowhere\.png"):
        onlooker.chat().say("this?", image="nowhere.png")
    with pytest.raises(UserError, match="made has no template of a conversation"):
        made(language.as_buildable(), tokenizer).chat()


def test_answers_are_words_where_the_model_writes(talker: Model, captioner: Model, pictures: np.ndarray) -> None:
    assert talker.answer(text="the dog", max_new_tokens=5) == talker.generate("the dog", max_new_tokens=5).strip()
    options: dict[str, Any] = {"image": pictures[0], "max_new_tokens": 5}
    asked = captioner.answer(text=["the dog"], prompt="{} rolls", **options)
    assert asked == [captioner.generate("the dog rolls", **options).strip()]
    with pytest.raises(UserError, match="needs the question"):
        captioner.answer(**options)
    with pytest.raises(UserError, match=r"has no \{\}, where the question goes"):
        captioner.answer(text="a", prompt="the", **options)
