"""Conversations that a user gives: a string, messages, several of them, and what is refused."""

import numpy as np
import pytest

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.conversation_input import ConversationInput
from mmjax.errors import UserError

CHAT = [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": "a cat"}]


@pytest.fixture(scope="module")
def inputs() -> ConversationInput:
    chain = (TokenizeConversation(PieceTokenizer(SentencePiece(50).train(["what is it", "a red cat"])), 40),)
    return ConversationInput("text", chain, chain[0].spec(None))


def test_a_string_and_messages_are_read(inputs: ConversationInput) -> None:
    text, messages = inputs.row("what is it"), inputs.row(CHAT[:1])
    np.testing.assert_array_equal(text["text"], messages["text"])
    assert text["text_mask"].sum() < inputs.row([*CHAT, CHAT[0]])["text_mask"].sum()
    for several, one in ((CHAT, True), (["a", CHAT], False), ("a", True)):
        assert inputs.listed(several)[1] is one


def test_what_is_no_conversation_is_named(inputs: ConversationInput) -> None:
    with pytest.raises(UserError, match="text 3 is a list; it takes a string, the user's turn"):
        inputs.row(["a"], 3)
    with pytest.raises(UserError, match="the text: the conversation's last exchange takes"):
        inputs.row("cat " * 80)
