"""Has a model answer every question of a split's conversations, or tell how likely it would have given other answers.

An answer is written behind the true earlier turns, as far as the model's chain reads them, whatever it wrote itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.dialogue import Dialogue, dialogue_of
from mmjax.data.transforms.exchanges import answer_places, heard_dialogue, media_entry
from mmjax.evaluate.split_writing import SplitWriter, texts_of_rows
from mmjax.evaluate.writing.likelihood import log_likelihoods
from mmjax.evaluate.writing.prompts import PromptIds, Prompts
from mmjax.evaluate.writing.writer import Writer


class AnsweredTurn(NamedTuple):
    """An answer of a conversation, and what was to be answered.

    row: of the split. number: among the conversation's answers, from 1. asked: the words of the user's last turn;
    spoken: that is a sound, without words.
    """

    row: int
    number: int
    asked: str
    spoken: bool
    wanted: str
    written: str


class AskedDialogue(NamedTuple):
    """A question as a decoder reads it. without: the inputs that aren't seen with it."""

    row: int
    number: int
    begun: PromptIds
    without: tuple[str, ...]


class SplitDialogues(SplitWriter):
    """Answers in batches, each of the questions of a few conversations, whose pictures and sounds are encoded once."""

    of_words = True

    def answers(
        self,
        variables: dict[str, Any],
        split: str,
        objective: str,
        conversations: Sequence[Dialogue | None],
        most: int,
        history: int | None = None,
    ) -> list[AnsweredTurn]:
        """The likeliest words, at most so many, at each of the assistant's turns.

        conversations: of each row of the split (`conversation_or_none`). history: as in `heard_dialogue`. Left out are
        turns that can't be framed, and conversations without what the decoder reads, where these don't count in
        training.

        Raises UserError as `SplitWriter` does, and where the objective's texts are no conversations.
        """
        found, size = [], self._batch_size
        for writer, prompts, asked, views in self._asked(variables, split, objective, conversations, history):
            for start in range(0, len(asked), size):
                some = asked[start : start + size]
                filled = [*some, *some[:1] * (size - len(some))]  # so that no program is compiled for fewer
                with jax.set_mesh(writer.mesh):
                    begun = [each.begun for each in filled]
                    texts = texts_of_rows(writer, prompts, begun, _own_views(views, filled), most, None)
                for each, text in zip(some, texts, strict=False):
                    found.append(_answered(conversations[each.row], each, text))
        return sorted(found)

    def answer_scores(
        self,
        variables: dict[str, Any],
        split: str,
        objective: str,
        conversations: Sequence[Dialogue | None],
        options: Mapping[tuple[int, int], Sequence[str]],
        history: int | None = None,
    ) -> dict[tuple[int, int], Float[np.ndarray, " o"]]:
        """The log-probability of each option, with its end, by the row and the answer's number, of those that have
        options. Else as `answers`."""
        found = {}
        for writer, prompts, asked, views in self._asked(variables, split, objective, conversations, history):
            for each in asked:
                if not (some := options.get((each.row, each.number))):
                    continue
                ids = [prompts.answer(text) for text in some]
                begun, together, inserts = each.begun
                with jax.set_mesh(writer.mesh):
                    own = _own_views(views, [each])
                    seen_by_all, most = [together] if together else None, max(map(len, ids))
                    read = writer.read([begun], own, most=most, together=seen_by_all, inserts=[inserts])
                    found[each.row, each.number] = log_likelihoods(writer, read, ids)[0]
        return found

    def _asked(
        self,
        variables: dict[str, Any],
        split: str,
        objective: str,
        conversations: Sequence[Dialogue | None],
        history: int | None,
    ) -> Iterator[tuple[Writer, Prompts, list[AskedDialogue], dict[str, Any]]]:
        """Of each batch the questions, shorter ones first, and the views with the split's rows by which they are
        found."""
        writer, prompts = self._writer(variables, objective)
        part: Any = self._pretrainer.objectives[objective]
        for start, views, seen in self._views(variables, split, objective):
            asked = []
            for place, there in enumerate(seen.tolist()):
                row = start + place
                dialogue = conversations[row] if row < len(conversations) else None
                if dialogue is not None and (there or part.alone or not part.reads):
                    asked += _questions(prompts, dialogue, row, history)
            asked.sort(key=lambda each: len(each.begun.ids))
            yield writer, prompts, asked, {"start": start, "views": views}


def conversation_or_none(messages: Any) -> Dialogue | None:
    """The conversation in a cell; None where there is none, or it can't be read."""
    try:
        return None if messages is None else dialogue_of(messages)
    except BadExample:
        return None


def answer_words(dialogue: Dialogue | None, number: int) -> str:
    """The words of a conversation's answer, by its number from 1."""
    return "" if dialogue is None else dialogue.turns[answer_places(dialogue)[number - 1]].words


def _questions(prompts: Prompts, dialogue: Dialogue, row: int, history: int | None) -> list[AskedDialogue]:
    found = []
    for number, place in enumerate(answer_places(dialogue), start=1):
        heard = heard_dialogue(dialogue, place, history)
        try:
            begun = prompts.asked(heard.dialogue)
        except BadExample:
            continue
        found.append(AskedDialogue(row, number, begun, tuple(map(media_entry, heard.unseen))))
    return found


def _answered(dialogue: Any, asked: AskedDialogue, text: str) -> AnsweredTurn:
    place = answer_places(dialogue)[asked.number - 1]
    before = next((turn for turn in reversed(dialogue.turns[:place]) if turn.role == "user"), None)
    words = "" if before is None else before.words
    spoken = not words and before is not None and any(getattr(part, "kind", "") == "audio" for part in before.parts)
    wanted = dialogue.turns[place].words
    return AnsweredTurn(asked.row, asked.number, words, spoken, wanted, text.strip())


def _own_views(batch: dict[str, Any], asked: Sequence[AskedDialogue]) -> dict[str, Any]:
    """The views of each question, without those that it isn't asked with."""
    places = np.array([each.row - batch["start"] for each in asked])
    found = {}
    for name, (tokens, real) in batch["views"].items():
        seen = np.array([name not in each.without for each in asked])
        found[name] = tokens[places], real[places] & seen[:, None]
    return found
