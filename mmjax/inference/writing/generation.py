"""A model's own writing: prompts and inputs in, texts out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.evaluate.writing.beams import Beams, Hypotheses, search
from mmjax.evaluate.writing.likelihood import log_likelihoods
from mmjax.evaluate.writing.prompts import PromptIds, Prompts
from mmjax.evaluate.writing.sampling import GREEDY, Sampling
from mmjax.evaluate.writing.text_so_far import TextSoFar, check_stop
from mmjax.evaluate.writing.writer import News, Read, Task, Texts, Writer
from mmjax.inference.inputs import Row
from mmjax.inference.row_embedder import chunks
from mmjax.inference.writing.encoded_views import ViewEncoder

MOST = 64  # words of a text, where nothing else is said
STRIDE = 16  # words between two looks at the text for a string that stops it

Ending = Literal["eos", "stop", "length"]


class Beginning(NamedTuple):
    """The beginning of a text: what it is written from.

    prompt: a text, or a list of messages. row: the inputs, as `ViewEncoder.row` makes them. place: the number of the
    item, by which words are drawn.
    """

    prompt: Any
    row: Row
    place: int


@dataclass(frozen=True)
class Written:
    """A text that was written.

    ids: of its words, with that which ended it. log_probabilities: of each, in the model's own distribution, before a
    temperature, a limit or a penalty. score: of a beam, which texts are ordered by; else the sum of those. ending:
    whether an id ended it, a string of `stop`, or the number of words.
    """

    text: str
    ids: tuple[int, ...]
    log_probabilities: Float[np.ndarray, " n"]
    score: float
    ending: Ending


@dataclass(frozen=True)
class Order:
    """An order: the settings by which texts are written.

    count: the number of texts. stop: the strings before which a text is cut. beams: None: words are drawn one by one.
    """

    most: int
    sampling: Sampling = GREEDY
    beams: Beams | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0
    count: int = 1

    def check(self, prompts: Prompts, vocab: int) -> None:
        """Raises UserError where something of it can't be had."""
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise UserError(f"max_new_tokens={self.most!r} must be a whole number of at least 1")
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"n={self.count!r} texts of each prompt: n must be a whole number of at least 1")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed!r} must be a whole number from 0 to 2**32 - 1")
        self.sampling.check()
        check_stop(self.stop, prompts.tokenizer)
        if self.beams is None:
            if self.count > 1 and self.sampling.temperature == 0:
                raise UserError(f"n={self.count} texts of temperature=0 are all the same: set a temperature, or beams")
            return
        self.beams.check(vocab)
        if self.sampling != GREEDY:
            raise UserError("beams find likely texts, and draw none: leave out temperature, limits and penalty")
        if self.stop:
            raise UserError("beams end with the model's own end alone: leave out stop, and cut the texts")
        if self.count > self.beams.width:
            raise UserError(f"n={self.count} texts are more than the {self.beams.width} that beams={self.beams.width}")


class Generation:
    """Writes with the decoder of one objective of a model."""

    def __init__(self, writer: Writer, prompts: Prompts, views: ViewEncoder, batch_size: int):
        self.writer, self.prompts, self.views, self._batch_size = writer, prompts, views, batch_size

    def __call__(self, items: Iterable[Beginning], order: Order) -> list[list[Written]]:
        """The texts of each item. Raises as `placed` does."""
        return [texts for _, texts in self.placed(items, order)]

    def placed(self, items: Iterable[Beginning], order: Order) -> Iterator[tuple[int, list[Written]]]:
        """The place and the texts of each item, a batch at a time.

        Raises UserError, at once, where what is ordered can't be had, and then where an item can't be used.
        """
        order.check(self.prompts, self.writer.vocab)
        each = order.count if order.beams is None else order.beams.width
        of = self._drawn if order.beams is None else self._searched
        batches = chunks(items, max(1, self._batch_size // each))
        return ((one.place, texts) for some in batches for one, texts in zip(some, of(some, order), strict=True))

    def stream(self, item: Beginning, order: Order) -> Iterator[str]:
        """The pieces of the text of one item, as they are written; together they are the text."""
        order.check(self.prompts, self.writer.vocab)
        if order.beams is not None or order.count > 1:
            raise UserError("a stream is of one text, whose words are drawn one by one: leave out beams and n")
        return self._begun([item], order).pieces()

    def scores(self, items: Iterable[Beginning], texts: Sequence[str], mean: bool) -> Float[np.ndarray, "n c"]:
        """The log-probability of each text, and of its end, behind each item; mean: over its ids."""
        ids = [[*self.prompts.pieces(text), *self.prompts.eos] for text in texts]
        for text, one in zip(texts, ids, strict=True):
            if not one:
                raise UserError(f"{text!r} is no text: it has no word whose probability could be told")
        found = []
        for some in chunks(items, self._batch_size):
            room = max(map(len, ids))
            prompts, read = self._read(some, room)
            for row, _ in enumerate(some):
                if (left := int(read.most[row])) < room:
                    raise UserError(
                        f"a text of {room} tokens behind a prompt of {len(prompts[row].ids)} is {room - left} more "
                        "than the decoder reads: shorten it"
                    )
            found.append(log_likelihoods(self.writer, read, ids, self._batch_size)[: len(some)])
        whole = np.concatenate(found)
        return whole / np.array([len(one) for one in ids]) if mean else whole

    def _read(self, some: Sequence[Beginning], most: int, copies: int = 1) -> tuple[list[PromptIds], Read]:
        """The items' prompts, and what the writer reads of these and of the items' inputs."""
        names = self.views.objective.reads
        prompts = [self.prompts.given(one.prompt, [n for n in names if one.row[f"{n}_valid"]]) for one in some]
        views = self.views([item.row for item in some])
        ids, together, inserts = zip(*prompts, strict=True)
        seen = together if any(together) else None
        read = self.writer.read(ids, views, most=most, together=seen, inserts=inserts, copies=copies)
        return prompts, read

    def begun(self, read: Read, prompts: Sequence[PromptIds], places: Sequence[int], order: Order) -> "Underway":
        """The texts behind prompts that were read, whose memory becomes theirs; places: the items' numbers."""
        drawn = [(place, sample) for place in places for sample in range(order.count)]
        rows, samples = zip(*drawn, strict=True)
        begun = self.writer.begin(read, order.sampling, order.seed, rows, samples)
        tokenizer = self.prompts.tokenizer
        so_far = [TextSoFar(tokenizer, one.words, order.stop) for one in prompts for _ in range(order.count)]
        return Underway(self.writer, order, *begun, so_far)

    def _begun(self, some: Sequence[Beginning], order: Order) -> "Underway":
        prompts, read = self._read(some, order.most, order.count)
        return self.begun(read, prompts, [item.place for item in some], order)

    def _drawn(self, some: Sequence[Beginning], order: Order) -> list[list[Written]]:
        writing = self._begun(some, order)
        writing.finish()
        whole = writing.written()
        return [whole[row : row + order.count] for row in range(0, len(whole), order.count)]

    def _searched(self, some: Sequence[Beginning], order: Order) -> list[list[Written]]:
        prompts, read = self._read(some, order.most)
        assert order.beams is not None
        found = search(self.writer, read, order.beams)
        found = Hypotheses(*map(np.asarray, found))  # pyright: ignore[reportArgumentType]
        return [
            [
                self._of_beam(found, row, beam, prompts[row].words)
                for beam in range(order.count)
                if found.lengths[row, beam] > 0
            ]
            for row in range(len(some))
        ]

    def _of_beam(self, found: Hypotheses, row: int, beam: int, prompt: list[int]) -> Written:
        so_far, length = TextSoFar(self.prompts.tokenizer, prompt), int(found.lengths[row, beam])
        so_far.add(np.asarray(found.ids)[row, beam, :length].tolist())
        written = _written(so_far, np.asarray(found.words)[row, beam, :length], self.writer.eos)
        return replace(written, score=float(found.total[row, beam]))


class Underway:
    """Texts while they are written.

    texts: on the device. so_far: each text on the host, as far as it was looked at.
    """

    def __init__(self, writer: Writer, order: Order, texts: Texts, news: News, given: Task, so_far: list[TextSoFar]):
        self._writer, self._order, self._news, self._given = writer, order, news, given
        self.texts, self.so_far = texts, so_far

    def finish(self) -> None:
        """Writes all texts to their ends."""
        order, until = self._order, 1
        while True:
            until = min(order.most, until + STRIDE) if order.stop else order.most
            self.texts, _ = self._writer.advance(self._writer.params, self.texts, self._given, until)
            done, counts, ids = (np.array(one) for one in (self.texts.done, self.texts.counts, self.texts.ids))
            for row, one in enumerate(self.so_far):
                if not one.stopped:
                    done[row] |= one.add(ids[row, len(one.ids) : counts[row]].tolist())
            if done[: len(self.so_far)].all():
                break
            self.texts = self.texts._replace(done=jax.device_put(done, self.texts.done.sharding))

    def pieces(self) -> Iterator[str]:
        """The pieces of the only text, as they are written."""
        (so_far,) = self.so_far
        for count in range(1, self._order.most + 1):
            now = self._news
            self.texts, self._news = self._writer.advance(self._writer.params, self.texts, self._given, count + 1)
            # The next word is on its way while this one is shown.
            last = so_far.add([int(np.asarray(now.ids)[0])]) or bool(np.asarray(now.done)[0])
            if piece := so_far.piece(last):
                yield piece
            if last:
                return

    def written(self) -> list[Written]:
        """The texts as far as they were looked at."""
        scores = np.asarray(self.texts.scores)
        return [_written(one, scores[row, : len(one.ids)], self._writer.eos) for row, one in enumerate(self.so_far)]


def _written(so_far: TextSoFar, scores: Float[np.ndarray, " n"], eos: Sequence[int]) -> Written:
    ended: Ending = "eos" if so_far.ids[-1] in eos else "length"
    ids = tuple(so_far.ids)
    return Written(so_far.text, ids, scores, float(scores.sum()), "stop" if so_far.stopped else ended)
