"""Prompts are framed as the training texts are, and what is written of them is what the whole pass says."""

from dataclasses import replace
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import SentencePiece, TokenizeConversation, TokenizePrefixed
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.transforms.chat_templates import ChatTemplate
from mmjax.data.transforms.prefixed import PrefixedText
from mmjax.errors import UserError
from mmjax.evaluate.split_writing import texts_of_rows
from mmjax.evaluate.writing.prompts import Prompts
from tests.inference.writing.writing_models import LENGTH, SIDE, TEXTS, VOCAB, captions, made

WORDS = PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20))
PREFIXED = TokenizePrefixed(SentencePiece(VOCAB), LENGTH, separator=" the ")
CHAT = TokenizeConversation(SentencePiece(VOCAB), LENGTH)


def prompts(step: Any) -> Prompts:
    return Prompts("text", (step,), {"text": WORDS}, "the model")


def test_a_prefix_is_framed_as_in_training_and_all_of_it_sees_itself() -> None:
    ids, together, _ = prompts(PREFIXED).given("a red dog")
    row = replace(PREFIXED, tokenizer=WORDS)(PrefixedText("a red dog", "rolls"), None)
    assert together == len(ids) == row.labels["prefix"]
    assert ids == row.value[0][:together].tolist()
    assert ids[0] == WORDS.bos
    with pytest.raises(UserError, match=r"the prefix has .* tokens, and a row of 24 has no room"):
        prompts(PREFIXED).given("a red dog rolls " * 10)


def test_a_user_s_turn_ends_where_the_assistant_s_words_begin() -> None:
    asked = prompts(CHAT)
    ids, together, _ = asked.given("a red dog")
    turns = [{"role": "user", "content": "a red dog"}, {"role": "assistant", "content": "rolls"}]
    row = replace(CHAT, tokenizer=WORDS)(turns, None)
    first = int(np.argmax(row.labels["loss"]))
    assert (ids, together) == (row.value[0][:first].tolist(), 0)
    assert asked.eos == (WORDS.eos,)
    assert row.value[0][np.flatnonzero(row.labels["loss"])[-1]] == WORDS.eos


@pytest.mark.parametrize("step", [PREFIXED, CHAT], ids=["prefixed", "chat"])
def test_words_behind_a_framed_prompt_are_those_of_the_whole_pass(step: Any) -> None:
    config = captions.as_buildable()
    config.data.transforms["text"] = (fdl.Config(type(step), SentencePiece(VOCAB), LENGTH),)
    if step is PREFIXED:
        config.data.transforms["text"][0].separator = " the "
    model = made(config, WORDS)
    picture = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    given = prompts(step).given("a red dog")
    ids, together = given.ids, given.together
    generation = model.generation()
    views = generation.views([generation.views.row({"image": picture}, None)])
    decoder = model.experiment.objectives["caption"].decoder
    own = {"params": model.params["objectives_caption"]["decoder"]}
    wanted: list[int] = []
    scores = []
    for _ in range(6):
        row = jnp.array([[*ids, *wanted]])
        states: Any = decoder.apply(own, row, None, views, jnp.array([together]))
        logits: Any = decoder.apply(own, states[:, -1], method="logits")
        wanted.append(int(logits[0, : WORDS.vocab_size].argmax()))
        scores.append(float(jax.nn.log_softmax(logits[0])[wanted[-1]]))
        if wanted[-1] == WORDS.eos:
            break
    (found,) = model.generate(["a red dog"], image=[picture], max_new_tokens=6, details=True)
    assert list(found.ids) == wanted
    np.testing.assert_allclose(found.log_probabilities, scores, atol=1e-5)
    with jax.set_mesh(generation.writer.mesh):
        (text,) = texts_of_rows(generation.writer, generation.prompts, [given], views, 6, None)
    assert text == found.text
    ((likelihood,),) = model.log_likelihood(["rolls"], ["a red dog"], image=[picture])
    own_ids = [*WORDS.encode("rolls"), WORDS.eos]
    states = decoder.apply(own, jnp.array([[*ids, *own_ids[:-1]]]), None, views, jnp.array([together]))
    said = jax.nn.log_softmax(jnp.asarray(decoder.apply(own, states, method="logits"))[0, len(ids) - 1 :])
    np.testing.assert_allclose(likelihood, said[np.arange(len(own_ids)), own_ids].sum(), atol=1e-4)


SHOWN = TokenizeConversation(SentencePiece(VOCAB), 40, template="vicuna_v1", slots={"image": 4})
ASKED = [
    {"role": "user", "content": "a red dog"},
    {"role": "assistant", "content": "rolls"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "the cat"}]},
]


def test_messages_are_framed_as_in_training_with_the_places_of_their_pictures() -> None:
    system = ChatTemplate(
        user=("u ", " "), assistant=("a ", "{eos}"), system=("", " "), begin="{bos}", media_first=True
    )
    step = replace(SHOWN, template=system)
    ids, together, inserts = prompts(step).given(ASKED, ["image"])
    row = replace(step, tokenizer=WORDS)([*ASKED, {"role": "assistant", "content": "runs"}], None)
    last = int(np.flatnonzero(~row.labels["loss"] & row.value[1])[-1]) + 1
    assert ids == row.value[0][:last].tolist()
    assert inserts == row.labels["slots"][:last].tolist()
    assert ([place for place in inserts if place >= 0], together) == ([0, 1, 2, 3], 0)
    assert prompts(step).given(ASKED).ids == ids
    front, words = prompts(step).given("the cat", ["image"]), prompts(step).given("the cat", [])
    assert front.words != front.ids
    assert set(words.inserts) == {-1}
    alone = prompts(step).given([{"role": "user", "content": [{"type": "image"}, "the cat"]}], ["image"])
    assert alone == front
    assert front.words == words.ids


@pytest.mark.parametrize(
    ("prompt", "entries", "message"),
    [
        ([{"role": "robot", "content": "hello"}], [], "turn 0 has the role 'robot', which is none of system, user"),
        ([{"role": "system", "content": "be short"}], [], "no turn of the user's"),
        (ASKED[:2], [], "ends in a turn of the assistant's"),
        (ASKED, [], "the messages have 1 of image, and none is given: give image=... beside them"),
        ([{"role": "user", "content": [{"type": "image", "image": 3}]}], ["image"], "a message holds image 1 itself"),
        ([{"role": "user", "content": [{"type": "image"}] * 2}], None, "the conversation has image 2, and slots="),
        ([3], [], "is no text"),
    ],
)
def test_messages_that_cannot_be_asked_say_why(prompt: Any, entries: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompts(SHOWN if prompt != ASKED else CHAT).given(prompt, entries)
    with pytest.raises(UserError, match="is no text: the model's texts are no conversations"):
        prompts(PREFIXED).given(ASKED)
