"""Cuts conversations into token ids, of which the assistant's words are to be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.chat_templates import BEGIN, END, ChatTemplate, template_of
from mmjax.data.transforms.contract import Rng, Spec
from mmjax.data.transforms.conversation_input import ConversationInput
from mmjax.data.transforms.dialogue import ChatTurn, Dialogue, Pictured, dialogue_of
from mmjax.data.transforms.exchanges import exchanges_of
from mmjax.data.transforms.read_conversation import kind_of_entry
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Cut, Labelled, real_ids
from mmjax.errors import UserError, not_among


class ChatPart(NamedTuple):
    """A part of a written conversation: a text, a mark, or the places of a picture.

    loss: whether its tokens are to be predicted.
    """

    kind: Literal["text", "mark", "slots"]
    text: str = ""
    loss: bool = False
    shown: Pictured | None = None


class Ids(NamedTuple):
    """Token ids, with for each whether it is to be predicted and which of the pictures' tokens stands there, or -1."""

    ids: list[int]
    loss: list[bool]
    slots: list[int]


@dataclass(frozen=True)
class TokenizeConversation(Tokenize):
    """Encodes a conversation as int32 ids `[length]` and their mask, with a label `loss`, bool `[length]`: True at the
    tokens of the assistant's turns and what ends them (Liu et al. 2023, arXiv:2310.03744). `ReadConversation` makes the
    conversations; a list of messages is one too.

    A conversation that is too long loses its oldest turns, a user's and what answers it at once, but never a picture,
    which goes to the first turn left, nor the system's turn. What follows the last assistant's turn isn't read.

    With `slots`, each picture takes as many places as the entry has tokens that it becomes, and the label `slots`,
    int32 `[length]`, says which of them stands there, -1 elsewhere: the tokens of all entries are counted through, in
    the order of the field. Without, no place stands for a picture: a model reads it otherwise.

    A string, and with `empty="keep"` a conversation that ends in a user's turn, is a prompt: the row ends where the
    assistant's words would begin. So a user's own texts are read.

    Attributes:
        bos, eos: left at False: the template has what begins and ends.
        template: of `TEMPLATES` by name (`plain`, `vicuna_v1`, `chatml`, `llama3`), or one of one's own.
        slots: the number of tokens of each entry: `{"image": 576, "image_2": 576}`.
        placeholder: the id that stands in their places; None: that of padding, of which the mask is True there.
        history: how many earlier exchanges the last one is read with; None: all. With 0 a question stands alone.
        answers: which of the assistant's turns are to be predicted, "every" one or the "last".

    Raises:
        UserError: a field has no such value, or the tokenizer lacks a mark of the template.
        BadExample: there is no assistant's turn, or one is empty; the last turns alone are too long; a text spells a
            mark; there are more pictures than `slots` has entries of the kind.
    """

    eos: bool = False
    template: ChatTemplate | str = "plain"
    slots: dict[str, int] = field(default_factory=dict)
    placeholder: int | None = None
    history: int | None = None
    answers: Literal["every", "last"] = "every"

    def __post_init__(self) -> None:
        super().__post_init__()
        template_of(self.template)
        if self.bos or self.eos:
            raise UserError("TokenizeConversation(bos=..., eos=...): leave them out, the template has what begins it")
        if self.answers not in ("every", "last"):
            raise UserError(f"TokenizeConversation: {not_among('answers', self.answers, ('every', 'last'))}")
        if self.history is not None and self.history < 0:
            raise UserError(f"TokenizeConversation(history={self.history}): it is 0 or more, or None for all")
        for entry, count in self.slots.items():
            kind_of_entry(entry)
            if count < 1:
                raise UserError(f"TokenizeConversation(slots={{{entry!r}: {count}}}): an entry has 1 token or more")
        if isinstance(self.tokenizer, Tokenizer):
            self._marks  # noqa: B018 (the tokenizer has them all)

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        del rng
        found, whole, _ = self.fitted(value)
        row = self._filled(found.ids)
        labels = {"loss": np.zeros(self.length, bool)}
        labels["loss"][: len(found.loss)] = found.loss
        if self.slots:
            labels["slots"] = np.full(self.length, -1, np.int32)
            labels["slots"][: len(found.slots)] = found.slots
        return Labelled(Cut(*row, whole) if whole > self.length else row, labels)

    def fitted(self, value: Any) -> tuple[Ids, int, int]:
        """The tokens of a conversation without the oldest exchanges that it has no room for; how many tokens all of it
        has, and how many exchanges were left out. Raises BadExample as a call does."""
        known: dict[tuple[str, bool], list[int]] = {}  # a turn that is written again isn't encoded again
        exchanges, system = self._exchanges(self._dialogue(value))
        if self.history is not None:
            exchanges, left = exchanges[-1 - self.history :], exchanges[: -1 - self.history]
            exchanges = _moved(left, exchanges)
        count = len(exchanges)
        whole = found = self._ids(self._spans([*system, *_flat(exchanges)]), known)
        while len(found.ids) > self.length and len(exchanges) > 1:
            exchanges = _moved(exchanges[:1], exchanges[1:])
            found = self._ids(self._spans([*system, *_flat(exchanges)]), known)
        if len(found.ids) > self.length:
            raise BadExample(
                f"the conversation's last exchange takes {len(found.ids)} tokens, with its pictures and the system's "
                f"turn, and there is room for {self.length}: {len(found.ids) - self.length} are too many",
                "unfit",
            )
        return found, len(whole.ids), count - len(exchanges)

    def prompt(self, value: Any) -> tuple[list[int], int, list[int]]:
        """The ids of a user's turn, or of a conversation, up to where the assistant's words begin; the number of first
        ones that see each other: none; and which of the pictures' tokens stands in the place of each, or -1."""
        row = self.by_hand(True)(value, None)
        ids = real_ids(row)
        slots = row.labels["slots"][: len(ids)].tolist() if self.slots else [-1] * len(ids)
        return ids, 0, slots

    def answer(self, words: str) -> list[int]:
        """The ids of an assistant's words behind a user's turn, with those of what ends them."""
        template = template_of(self.template)
        (_, asked), (told, after) = template.user, template.assistant
        space = told[len(told.rstrip(" ")) :]
        before = [*self._written(asked), *self._written(template.between), *self._written(told.rstrip(" "))]
        found = self._ids([*before, ChatPart("text", space + words, True), *self._written(after, True)], {})
        return [id for id, loss in zip(found.ids, found.loss, strict=True) if loss]

    @property
    def ends(self) -> tuple[int, ...]:
        """The id with which what ends the assistant's turn begins; none where nothing ends it."""
        _, after = template_of(self.template).assistant
        return tuple(self._ids(self._written(after), {}).ids[:1])

    def spec(self, before: Spec | None) -> Spec:
        labels = (("loss", (self.length,), "bool"), ("slots", (self.length,), "int32"))
        found = super().spec(before)._replace(labels=labels[: 1 + bool(self.slots)], kind=ConversationInput)
        return found._replace(slots=tuple(self.slots.items()))

    def _dialogue(self, value: Any) -> Dialogue:
        if isinstance(value, Dialogue):
            return value
        if not isinstance(value, str):
            return dialogue_of(value)
        if self.empty != "keep":
            raise BadExample(f"{value!r:.40} is no conversation: ReadConversation makes those of a column", "unfit")
        return Dialogue([ChatTurn("user", (value,))])

    def _exchanges(self, dialogue: Dialogue) -> tuple[list[list[ChatTurn]], list[ChatTurn]]:
        """The turns that are read, a user's with those up to the next one's at a time, and the system's."""
        system = [t for t in dialogue.turns if t.role == "system"]
        answers = [place for place, turn in enumerate(dialogue.turns) if turn.role == "assistant"]
        asks = dialogue.turns[-1].role == "user" and self.empty == "keep"
        if not answers and not asks:
            raise BadExample("the conversation has no turn of the assistant's", "unfit")
        if not system and (words := template_of(self.template).default_system):
            system = [ChatTurn("system", (words,))]
        read = dialogue.turns if asks else dialogue.turns[: answers[-1] + 1]
        if any(turn.role == "assistant" and not turn.words for turn in read):
            raise BadExample("a turn of the assistant's is empty", "empty")
        return exchanges_of(read), system

    def _spans(self, turns: Sequence[ChatTurn]) -> list[ChatPart]:
        """The conversation as the template writes it."""
        template = template_of(self.template)
        spans = self._written(template.begin)
        last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
        for place, turn in enumerate(turns):
            before, after = getattr(template, turn.role)
            loss = turn.role == "assistant" and turn.predicted and (self.answers == "every" or place == last)
            spans += self._written(template.between) if place else []
            if turn.role == "assistant":
                told, space = before.rstrip(" "), before[len(before.rstrip(" ")) :]
                spans += [
                    *self._written(told),
                    ChatPart("text", space + turn.words, loss),
                    *self._written(after, loss),
                ]
            else:
                spans += [*self._written(before), *self._content(turn, template), *self._written(after)]
        if turns[-1].role != "assistant":
            spans += self._written(template.between) + self._written(template.assistant[0].rstrip(" "))
        return spans

    def _content(self, turn: ChatTurn, template: ChatTemplate) -> list[ChatPart]:
        """What a user or the system says and shows."""
        parts = sorted(turn.parts, key=lambda part: isinstance(part, str)) if template.media_first else turn.parts
        if not self.slots:
            return [ChatPart("text", turn.words)]
        before, after = (self._written(text) for text in template.media)
        found: list[ChatPart] = []
        for part in parts:
            found += (
                [ChatPart("text", part)] if isinstance(part, str) else [*before, ChatPart("slots", shown=part), *after]
            )
        return found

    def _written(self, text: str, loss: bool = False) -> list[ChatPart]:
        parts = template_of(self.template).parts(text)
        return [ChatPart("mark" if place % 2 else "text", part, loss) for place, part in enumerate(parts) if part]

    def _ids(self, spans: Sequence[ChatPart], known: dict[tuple[str, bool], list[int]]) -> Ids:
        """The tokens of the spans. Neighbouring texts are cut together, where both are to be predicted or neither."""
        found = Ids([], [], [])
        joined: list[ChatPart] = []
        for span in spans:
            if joined and span.kind == "text" == joined[-1].kind and span.loss == joined[-1].loss:
                joined[-1] = span._replace(text=joined[-1].text + span.text)
            else:
                joined.append(span)
        for before, span in zip([None, *joined], joined, strict=False):
            slots: Sequence[int] = ()
            if span.kind == "mark":
                ids = [self._marks[span.text]]
            elif span.shown is not None:
                slots = self._places(span.shown)
                ids = [self._placeholder] * len(slots)
            else:
                ids = self._cut(span.text, before is not None and before.kind == "text", known)
            found.ids.extend(ids)
            found.loss.extend([span.loss] * len(ids))
            found.slots.extend(slots or [-1] * len(ids))
        return found

    def _cut(self, text: str, goes_on: bool, known: dict[tuple[str, bool], list[int]]) -> list[int]:
        """The pieces of a text. Raises `BadExample` where it spells a mark, or isn't valid text."""
        if (text, goes_on) in known:
            return known[text, goes_on]
        tokenizer = self._model()
        try:
            ids = tokenizer.encode_after(text) if goes_on else tokenizer.encode(text)
        except (UnicodeError, RuntimeError) as error:
            raise BadExample(f"the conversation is no text: {error}", "undecodable") from error
        if spelt := set(ids) & set(self._marks.values()):
            names = [name for name, id in self._marks.items() if id in spelt]
            raise BadExample(f"a text of the conversation spells the mark {names[0]}: {text!r:.60}", "unfit")
        return known.setdefault((text, goes_on), ids)

    def _places(self, shown: Pictured) -> range:
        """The numbers of a picture's tokens among those of all entries."""
        entries = [entry for entry in self.slots if kind_of_entry(entry) == shown.kind]
        if shown.number >= len(entries):
            raise BadExample(
                f"the conversation has {shown.kind} {shown.number + 1}, and slots={self.slots} has "
                f"{len(entries)} of that kind",
                "unfit",
            )
        entry, ends = entries[shown.number], dict(zip(self.slots, accumulate(self.slots.values()), strict=True))
        return range(ends[entry] - self.slots[entry], ends[entry])

    @property
    def _placeholder(self) -> int:
        given = (self.placeholder, self.pad, self._model().pad)
        return next(id for id in given if id is not None)

    @cached_property
    def _marks(self) -> dict[str, int]:
        """The ids of the template's marks."""
        tokenizer, found = self._model(), {}
        ends = {BEGIN: tokenizer.bos, END: tokenizer.eos}
        for mark in template_of(self.template).used():
            id = ends[mark] if mark in ends else tokenizer.id_of(mark)
            if id is None:
                raise UserError(
                    f"TokenizeConversation(template={self.template!r}): the tokenizer has no piece {mark}, which the "
                    "template has: name another template, or ChatTemplate(...) without it"
                )
            found[mark] = id
        return found

    def by_hand(self, upright: bool) -> "TokenizeConversation":
        return replace(self, empty="keep")


def _flat(exchanges: Sequence[Sequence[ChatTurn]]) -> list[ChatTurn]:
    return [turn for exchange in exchanges for turn in exchange]


def _moved(left: Sequence[Sequence[ChatTurn]], kept: Sequence[Sequence[ChatTurn]]) -> list[list[ChatTurn]]:
    """The exchanges kept, the first of which shows the pictures of those that are left out."""
    pictures = [part for turn in _flat(left) for part in turn.parts if isinstance(part, Pictured)]
    first = Dialogue(kept[0]).with_front(pictures).turns
    return [list(first), *map(list, kept[1:])]
