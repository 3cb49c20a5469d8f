"""Has a model write of every example of a split, or tell how likely it would have written given texts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Bool, Float

from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Prepared
from mmjax.errors import UserError, unknown
from mmjax.evaluate.writing.beams import Beams, search
from mmjax.evaluate.writing.likelihood import log_likelihoods
from mmjax.evaluate.writing.prompts import PromptIds, Prompts
from mmjax.evaluate.writing.text_so_far import TextSoFar
from mmjax.evaluate.writing.writer import Writer
from mmjax.objectives.contract import Writing
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.objectives.written import decoder_to_write, params_to_write
from mmjax.runtime import hosts
from mmjax.runtime.mesh import ACTIVATION_RULES, put, replicated


class WrittenSplit(NamedTuple):
    """The texts of the examples that have something of what the decoder reads."""

    texts: list[str]
    rows: list[int]
    """The examples' places in the split."""


class SplitWriter:
    """Writes the likeliest words, or searches by beams, a batch of examples at a time; nothing is augmented.

    Of several hosts each encodes its part of a batch, and then writes the texts of all: all must make the same calls.
    """

    of_words = False  # whether an objective will do that reads nothing beside its text

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._pretrainer, self._data, self._mesh, self._batch_size = pretrainer, data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)

        def read(variables: dict[str, Any], batch: Any, objective: str) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                return pretrainer.apply(variables, batch, objective, method="views_to_write"), batch["index"]

        self._read = jax.jit(read, static_argnames="objective", out_shardings=replicated(mesh))
        self._whole = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))

    def __call__(
        self,
        variables: dict[str, Any],
        split: str,
        objective: str,
        prompt: str | Sequence[str] = "",
        most: int = 64,
        beams: Beams | None = None,
    ) -> WrittenSplit:
        """The text of each example, of `most` words at most, behind a prompt, or each behind its own.

        Raises:
            UserError: there is no such objective, or it writes nothing or reads nothing beside its text; the data has
                no tokenizer for it.
            SplitNotFoundError: no source has the split.
        """
        writer, prompts = self._writer(variables, objective)
        reads, texts, rows = self._pretrainer.objectives[objective].reads, [], []
        one = prompts.given(prompt if isinstance(prompt, str) else "", reads)
        for start, views, seen in self._views(variables, split, objective):
            begun = [one] * len(seen)
            if not isinstance(prompt, str):  # rows beyond the split fill up its last batch
                some = prompt[start : start + len(seen)]
                begun[: len(some)] = [prompts.given(text, reads) for text in some]
            with jax.set_mesh(writer.mesh):
                made = texts_of_rows(writer, prompts, begun, views, most, beams)
            rows += [start + row for row in np.flatnonzero(seen).tolist()]
            texts += [made[row] for row in np.flatnonzero(seen)]
        return WrittenSplit(texts, rows)

    def option_scores(
        self,
        variables: dict[str, Any],
        split: str,
        objective: str,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
    ) -> dict[int, Float[np.ndarray, " o"]]:
        """The log-probability of each option, and its end, behind its example's prompt, by the example's row; of those
        that have options and something of what the decoder reads. Raises as a call does."""
        writer, cutter = self._writer(variables, objective)
        found = {}
        for start, views, seen in self._views(variables, split, objective):
            for row in np.flatnonzero(seen).tolist():
                if not (some := options[start + row]):
                    continue
                ids = [[*cutter.pieces(text), *cutter.eos] for text in some]
                own = {name: (x[row : row + 1], real[row : row + 1]) for name, (x, real) in views.items()}
                with jax.set_mesh(writer.mesh):
                    begun, together, inserts = cutter.given(prompts[start + row], [*own])
                    seen_by_all = [together] if together else None
                    most = max(map(len, ids))
                    read = writer.read([begun], own, most=most, together=seen_by_all, inserts=[inserts])
                    found[start + row] = log_likelihoods(writer, read, ids)[0]
        return found

    def _writer(self, variables: dict[str, Any], objective: str) -> tuple[Writer, Prompts]:
        found = self._pretrainer.objectives
        able = [name for name, one in found.items() if isinstance(one, Writing) and (one.reads or self.of_words)]
        if objective not in able:
            raise UserError(
                unknown("there is nothing to write of by", objective, able, "objectives that write of what they read")
            )
        part: Any = found[objective]
        chain = self._data.mixture.transforms[part.text]
        prompts = Prompts(part.text, chain, self._data.chains.tokenizers, f"objective {objective!r}")
        own = jax.device_get(self._whole(params_to_write(part, objective, variables["params"])))
        decoder, params = decoder_to_write(part, objective, self._pretrainer.towers, own)
        return Writer(decoder, params, prompts.eos, prompts.tokenizer.vocab_size), prompts

    def _views(
        self, variables: dict[str, Any], split: str, objective: str
    ) -> Iterator[tuple[int, dict[str, Any], Bool[np.ndarray, " b"]]]:
        """Of each batch its first row, what the decoder reads, and which rows have something of it."""
        start = 0
        for batch, _ in evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part):
            views, index = jax.device_get(self._read(variables, put(batch, self._mesh), objective))
            order = np.argsort(index)  # a mesh may have the hosts' rows in another order
            views = {name: (tokens[order], real[order]) for name, (tokens, real) in views.items()}
            # Nothing is seen of the rows that fill up the last batch.
            seen = np.any([np.zeros(len(index), bool), *(real.any(axis=1) for _, real in views.values())], axis=0)
            yield start, views, seen
            start += len(seen)


def texts_of_rows(
    writer: Writer, prompts: Prompts, begun: Sequence[PromptIds], views: Any, most: int, beams: Beams | None
) -> list[str]:
    """The text of each row of the views, behind its prompt: of the likeliest words, or the best that a search finds."""
    ids, together, inserts = (list(each) for each in zip(*begun, strict=True))
    read = writer.read(ids, views, most=most, together=together if any(together) else None, inserts=inserts)
    if beams is None:
        texts, _, given = writer.begin(read)
        texts, _ = writer.advance(writer.params, texts, given, most)
        words, lengths = np.asarray(texts.ids), np.asarray(texts.counts)
    else:
        best = search(writer, read, beams)
        words, lengths = np.asarray(best.ids)[:, 0], np.asarray(best.lengths)[:, 0]
    found = []
    for row, one in enumerate(begun):
        so_far = TextSoFar(prompts.tokenizer, one.words)
        so_far.add(words[row, : lengths[row]].tolist())
        found.append(so_far.text)
    return found
