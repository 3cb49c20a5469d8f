"""Reads a user's conversations: what is said first as a string, or all messages up to the turn to be written."""

from collections.abc import Mapping
from typing import Any

from mmjax.data.transforms.input import Read, value_kind
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError


class ConversationInput(TextInput):
    """Reads prompts of `TokenizeConversation`: a string, which is the user's turn, or a list of messages."""

    one, several = "conversation", "conversations"

    @property
    def takes(self) -> str:
        return (
            "it takes a string, the user's turn, or a list of messages as dicts, or token ids as an array of ints [L]"
        )

    def is_one(self, value: Any) -> bool:
        return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)

    def read(self, value: Any, where: str) -> Read:
        if self.is_one(value):
            return self.run(value)
        if isinstance(value, list | tuple):
            raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
        return super().read(value, where)

    def _warn_if_cut(self, text: str, where: str) -> None:
        """Warns of nothing: a turn that is too long is an error, since it loses none of its tokens."""
