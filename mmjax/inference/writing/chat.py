"""A conversation with a loaded model: its turns, and the decoder's memory of them, which is kept between turns."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.dialogue import MEDIA_KINDS, ChatTurn, Dialogue, dialogue_of
from mmjax.errors import UserError, unknown
from mmjax.evaluate.writing.read_so_far import ReadSoFar, Token
from mmjax.evaluate.writing.sampling import Sampling
from mmjax.inference.inputs import Inputs
from mmjax.inference.writing.generation import MOST, Generation, Order, Underway, Written
from mmjax.models.decoders.text import Views

Message = dict[str, Any]


class Chat:
    """A conversation with a model, as `Model.chat` begins one.

    What the assistant says is what `generate` writes behind all turns, as the training texts frame them. A turn costs
    the reading of its own tokens only: those before it are in the memory. The last words of an answer are read again
    where the tokenizer cuts the answer in another way than it was drawn. A model whose layers read pictures beside the
    text, or before it, reads all turns again when a turn brings one.

    A conversation that is too long for the model loses its oldest exchanges, as training texts do
    (`TokenizeConversation`), with a warning; `messages` keeps them.
    """

    def __init__(self, generation: Generation, inputs: Inputs, source: str, messages: Sequence[Mapping[str, Any]] = ()):
        if not generation.prompts.chats:
            raise UserError(
                f"{source} has no template of a conversation: {generation.views.name!r} was trained on texts alone, "
                "whose chain doesn't end in TokenizeConversation; generate(...) goes on with a text"
            )
        self._generation, self._inputs, self._source = generation, inputs, source
        self._read = ReadSoFar(generation.writer)
        self._slots = [entry for entry, count in generation.prompts.slots.items() for _ in range(count)]
        self._shown: list[Any] = []
        self._seen: dict[str, int] = {}
        self._views: Views = {}
        self._left_out = 0
        self._messages: list[Message] = []
        if messages:
            dialogue = _dialogue(messages)
            self._pictures(dialogue)
            self._messages = [_message(turn) for turn in dialogue.turns]

    @property
    def messages(self) -> list[Message]:
        """The turns so far, in Hugging Face's chat format: `{"role": ..., "content": ...}`; of a turn with pictures the
        content is a list of parts."""
        return [dict(message) for message in self._messages]

    def undo(self) -> None:
        """Takes the last exchange back: what the user said last, and all behind it.

        Raises UserError where the user said nothing yet.
        """
        asked = [place for place, message in enumerate(self._messages) if message["role"] == "user"]
        if not asked:
            raise UserError("undo(): nothing was said yet")
        self._messages = self._messages[: asked[-1]]

    def copy(self) -> "Chat":
        """The same conversation, to be gone on with in another way; its memory is its own."""
        found = Chat(self._generation, self._inputs, self._source)
        found._messages, found._left_out = self.messages, self._left_out
        found._shown, found._seen, found._views = list(self._shown), self._seen, self._views
        found._read = self._read.copy()
        return found

    def say(
        self,
        text: str = "",
        *,
        max_new_tokens: int = MOST,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        details: bool = False,
        **inputs: Any,
    ) -> Any:
        """The assistant's answer to a turn of the user's: `say("and this?", image=picture)`.

        inputs: `image=...`, `audio=...`: of each one or a list. The other arguments are those of `Model.generate`.

        Raises UserError where something can't be used or had; the conversation stays as it was then.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        order = Order(max_new_tokens, sampling, None, (stop,) if isinstance(stop, str) else tuple(stop), seed)
        going = self._begun("say", text, order, inputs)
        going.writing.finish()
        written = self._ended(going, order)
        return written if details else written.text

    def stream(
        self,
        text: str = "",
        *,
        max_new_tokens: int = MOST,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        **inputs: Any,
    ) -> Generator[str, None, None]:
        """The answer of `say` in pieces, as they are written. Who takes no more of them breaks the answer off; it is
        what was written until then."""
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        order = Order(max_new_tokens, sampling, None, (stop,) if isinstance(stop, str) else tuple(stop), seed)
        return self._pieces(self._begun("stream", text, order, inputs), order)

    def _pieces(self, going: "Answering", order: Order) -> Generator[str, None, None]:
        shown, space = False, ""
        try:
            for piece in going.writing.pieces():
                whole = space + piece if shown else piece.lstrip()
                space = whole[len(whole.rstrip()) :]
                if whole := whole.rstrip():
                    shown = True
                    yield whole
        except GeneratorExit:
            if shown:
                self._ended(going, None)
            raise
        self._ended(going, order)

    def _begun(self, who: str, text: str, order: Order, inputs: Mapping[str, Any]) -> "Answering":
        prompts, writer = self._generation.prompts, self._generation.writer
        order.check(prompts, writer.vocab)
        messages = [*self._messages, self._turn(who, text, inputs)]
        pictures = self._pictures(_dialogue(messages))
        views = self._encoded(pictures)
        found = prompts.conversation(messages, writer.decoder.room(writer.ahead(views)))
        prompt = found.prompt
        if found.left_out > self._left_out:
            warnings.warn(
                f"the conversation has {found.whole} tokens, and {self._source} has room for fewer: of its oldest "
                f"exchanges {found.left_out} are left out from now on",
                stacklevel=4,
            )
        self._left_out = found.left_out
        numbers = self._numbers(pictures)
        tokens = [
            Token(id, place, numbers[self._slots[place]] if place >= 0 else -1)
            for id, place in zip(prompt.ids, prompt.inserts, strict=True)
        ]
        beside = {entry: number for entry, number in numbers.items() if entry not in self._slots}
        read = self._read.read(tokens, views, beside, most=order.most)
        return Answering(messages, tokens, self._generation.begun(read, [prompt], [0], order))

    def _ended(self, going: "Answering", order: Order | None) -> Written:
        """The answer, after it and the turn before it became the conversation's. order: None of what was broken off."""
        (so_far,), (written,) = going.writing.so_far, going.writing.written()
        self._read.written(going.writing.texts, going.tokens, so_far.ids)
        answer = written.text.strip()
        self._messages = [*going.messages, *([{"role": "assistant", "content": answer}] if answer else [])]
        if order is not None and written.ending == "length" and len(written.ids) < order.most:
            warnings.warn(
                f"the answer is cut off after {len(written.ids)} tokens: {self._source} has no positions for more",
                stacklevel=4,
            )
        return replace(written, text=answer)

    def _turn(self, who: str, text: Any, inputs: Mapping[str, Any]) -> Message:
        """The message of a turn: its pictures and sounds, then its words."""
        if not isinstance(text, str):
            raise UserError(f"{who}({text!r:.60}): a turn is a text, and pictures or sounds by name: image=...")
        parts: list[dict[str, Any]] = []
        for kind, value in inputs.items():
            if value is None:
                continue
            entries = self._entries(kind)
            if not entries:
                able = [one for one in MEDIA_KINDS if self._entries(one)]
                raise UserError(unknown(f"{who}() was given", kind, able, f"inputs that {self._source} reads"))
            some, _ = self._inputs.listed(entries[0], value)
            parts += [{"type": kind, kind: one} for one in some]
        if not text.strip() and not parts:
            raise UserError("an empty turn: say something, or show a picture")
        words = [{"type": "text", "text": text}] if text.strip() else []
        return {"role": "user", "content": [*parts, *words] if parts else text}

    def _entries(self, kind: str) -> list[str]:
        """The model's inputs of a kind, in the order of a conversation's pictures."""
        placed = dict.fromkeys([*self._slots, *self._generation.views.objective.reads])
        return [name for name in placed if name.partition("_")[0] == kind]

    def _pictures(self, dialogue: Dialogue) -> dict[str, Any]:
        """The pictures and sounds of a conversation, by the model's inputs."""
        found: dict[str, Any] = {}
        for kind in MEDIA_KINDS:
            shown, entries = dialogue.seen(kind), self._entries(kind)
            if len(shown) > len(entries):
                raise UserError(
                    f"the conversation has {len(shown)} of {kind}, and {self._source} reads {len(entries) or 'none'}"
                    + (": begin another one, model.chat()" if entries else "")
                )
            for entry, one in zip(entries, shown, strict=False):
                if one.value is None:
                    raise UserError(f"messages name {kind} {one.number + 1}, and hold none: give it in its part")
                found[entry] = one.value
        return found

    def _encoded(self, pictures: dict[str, Any]) -> Views:
        """The tokens of the pictures; encoded where they are others than at the turn before."""
        views = self._generation.views
        if views.objective.reads and not pictures and not views.objective.alone:
            raise UserError(
                f"the conversation needs {' or '.join(views.objective.reads)}: {views.name!r} writes of nothing else"
            )
        if not views.objective.reads:
            return {}
        key = self._numbers(pictures)
        if not self._views or key != self._seen:
            self._seen, self._views = key, views([views.row(pictures, None)])
        return self._views

    def _numbers(self, pictures: Mapping[str, Any]) -> dict[str, int]:
        """The number of each picture among all that were shown: by it one is known again."""
        for one in pictures.values():
            if not any(one is other for other in self._shown):
                self._shown.append(one)
        return {
            entry: next(number for number, other in enumerate(self._shown) if other is one)
            for entry, one in pictures.items()
        }


class Answering(NamedTuple):
    """An answer while it is written: the messages before it, the tokens of these, and what writes it."""

    messages: list[Message]
    tokens: list[Token]
    writing: Underway


def _dialogue(messages: Sequence[Mapping[str, Any]]) -> Dialogue:
    try:
        return dialogue_of(list(messages))
    except BadExample as reason:
        raise UserError(f"messages: {reason}") from reason


def _message(turn: ChatTurn) -> Message:
    if all(isinstance(part, str) for part in turn.parts):
        return {"role": turn.role, "content": turn.words}
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind, part.kind: part.value}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts}
