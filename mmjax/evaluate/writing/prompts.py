"""Prompts as ids, by the chain and the tokenizer of the texts that a decoder was trained on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.asked_dialogue import asked_dialogue, is_conversation
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.dialogue import Dialogue, dialogue_of
from mmjax.errors import UserError


class PromptIds(NamedTuple):
    """A prompt as a decoder reads it: one id at least."""

    ids: list[int]
    together: int
    """The number of first ones that see each other."""
    inserts: list[int]
    """Which of the views' tokens stands in the place of each; -1 at words."""

    @property
    def words(self) -> list[int]:
        """The ids that are words."""
        return [id for id, place in zip(self.ids, self.inserts, strict=True) if place < 0]


class Conversed(NamedTuple):
    """A conversation as a decoder reads it."""

    prompt: PromptIds
    whole: int
    """The number of tokens of all of it."""
    left_out: int
    """The number of oldest exchanges that aren't in the prompt."""


class Prompts:
    """Turns prompts into ids: cleaned as the training texts were, with the id that begins a text where theirs have it.

    entry: the batch's, which `chain` makes. tokenizers: by entry. source: the model's name, for messages.
    """

    def __init__(self, entry: str, chain: Sequence[Any], tokenizers: Mapping[str, Tokenizer], source: str):
        step = next((one for one in chain if one.vocabulary() is not None), None)
        lacks = step is not None and isinstance(step.vocabulary(), TokenizerSpec) and entry not in tokenizers
        if step is None or lacks:
            raise UserError(f"{source} has no tokenizer for {entry!r}, whose words it would write")
        bound = Chains({entry: chain}, {entry: tokenizers[entry]} if entry in tokenizers else {}).transforms[entry]
        place = next(i for i, one in enumerate(bound) if one.vocabulary() is not None)
        self._cleaning = [one for before in bound[:place] if (one := before.by_hand(True)) is not None]
        self._step: Any = bound[place]
        self.tokenizer: Tokenizer = self._step.tokenizer

    @property
    def eos(self) -> tuple[int, ...]:
        """The ids that end a text; none where the training texts have none."""
        if hasattr(self._step, "ends"):
            return self._step.ends
        return (self.tokenizer.eos,) if self._step.eos and self.tokenizer.eos is not None else ()

    def given(self, prompt: Any, entries: Collection[str] | None = None) -> PromptIds:
        """The ids of a prompt, framed as training texts are (`TokenizePrefixed`, `TokenizeConversation`): of a string,
        or where those are conversations of a list of messages too, that ends in a user's turn.

        entries: the names of the pictures and sounds that are given beside it; one whose tokens stand within texts, and
        which no message names, stands before the user's words. None: it isn't known what is given, and all is where
        the messages say.

        Raises UserError where it is no text and no conversation, can't be framed, names a picture that isn't given, or
        is empty with nothing that begins a text.
        """
        talks = self.chats
        if not isinstance(prompt, str) and not (talks and is_conversation(prompt)):
            more = ": the model's texts are no conversations" if is_conversation(prompt) else ""
            raise UserError(f"prompt={prompt!r:.60} is no text{more}")
        if not self.framed:
            ids = self._begun(prompt)
            return PromptIds(ids, 0, [-1] * len(ids))
        try:
            if not talks:
                return PromptIds(*self._step.prompt(self._cleaned(prompt)))
            dialogue = asked_dialogue(prompt, entries, [*self._step.slots])
            for step in self._cleaning:
                dialogue = dialogue.mapped(step)
            return PromptIds(*self._step.prompt(dialogue))
        except BadExample as reason:
            raise UserError(f"prompt={prompt!r:.60}: {reason}") from reason

    @property
    def framed(self) -> bool:
        """True if the training texts have something around what a prompt is of."""
        return hasattr(self._step, "prompt")

    @property
    def chats(self) -> bool:
        """True if the training texts are conversations."""
        return isinstance(self._step, TokenizeConversation)

    @property
    def slots(self) -> dict[str, int]:
        """The numbers of tokens of the pictures that stand within a text, by their names in the order of counting."""
        return self._step.slots if self.chats else {}

    def conversation(self, messages: Sequence[Mapping[str, Any]], room: int | None) -> Conversed:
        """A conversation up to where the assistant's next words begin, in as many tokens as training texts have, and
        `room`: without its oldest exchanges where it has more.

        Raises UserError where it is none, or its last exchange alone has more.
        """
        step = self._step.by_hand(True)
        step = step if room is None else replace(step, length=min(step.length, room))
        try:
            dialogue = dialogue_of(messages)
            for one in self._cleaning:
                dialogue = dialogue.mapped(one)
            found, whole, left_out = step.fitted(dialogue)
        except BadExample as reason:
            raise UserError(f"the conversation can't be gone on with: {reason}") from reason
        return Conversed(PromptIds(found.ids, 0, found.slots), whole, left_out)

    def asked(self, dialogue: Dialogue) -> PromptIds:
        """The ids of a conversation that ends in a user's turn, as `given` gives a prompt's.

        Raises UserError where training texts are no conversations; BadExample where it can't be framed.
        """
        if not self.chats:
            raise UserError(
                f"the chain of the texts ends in {type(self._step).__name__}, which cuts no conversations: "
                "TokenizeConversation does"
            )
        cleaned: Any = dialogue
        for step in self._cleaning:
            cleaned = cleaned.mapped(step)
        return PromptIds(*self._step.prompt(cleaned))

    def answer(self, words: str) -> list[int]:
        """The ids of an assistant's words as they stand in a conversation, with those that end them."""
        return self._step.answer(self._cleaned(words))

    def _begun(self, prompt: str) -> list[int]:
        pieces = self.pieces(prompt)
        if self._step.bos or not pieces:
            if self.tokenizer.bos is None:
                raise UserError(
                    "an empty prompt gives the decoder nothing to begin with, for the tokenizer has no id that begins "
                    "a text (bos): give a prompt"
                )
            return [self.tokenizer.bos, *pieces]
        return pieces

    def pieces(self, text: str) -> list[int]:
        """The ids of a text, as it was cleaned, without those that begin and end it."""
        cleaned = self._cleaned(text)
        try:
            return list(self.tokenizer.encode(cleaned)) if cleaned else []
        except UnicodeError as error:
            raise UserError(f"prompt={text!r:.60} is no text: {error}") from error

    def _cleaned(self, text: str) -> str:
        """The text as training texts are before they are cut."""
        cleaned = text
        for step in self._cleaning:
            if not cleaned:
                break
            try:
                cleaned = step(cleaned, None)
            except BadExample as reason:
                raise UserError(f"prompt={text!r:.60}: {reason}") from reason
        return cleaned
