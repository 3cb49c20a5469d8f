"""Fills a masked place of a prompt: with a word of the vocabulary (`MaskedText`), or one of given texts (`Reserve`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray
from scipy.special import softmax

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import IdsAlone
from mmjax.errors import UserError
from mmjax.inference.classification import Classification
from mmjax.inference.filling_parts import Programs, check_read_beside, check_room, cleaned_part
from mmjax.inference.filling_videos import SpokenFiller
from mmjax.inference.inputs import Inputs, Row
from mmjax.inference.predictions import AskedTogether
from mmjax.objectives.contract import AnyView, Fused, View, parts
from mmjax.objectives.encoding import Encoding, Keys
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.readings import distinct_views
from mmjax.objectives.reserve.objective import Reserve

MASK = "[MASK]"  # stands for the word that is looked for
TOP = 5


@dataclass(frozen=True, repr=False)
class MaskedAlready(Corrupt):
    """Hides nothing: the tokens that are masks already are those that are chosen."""

    def draw(
        self,
        key: PRNGKeyArray,
        index: Int[Array, " b"],
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        paired: Bool[Array, " b"] | None = None,
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        del key, index, paired
        return ids, mask & (ids == self.mask_id)


class Filler:
    """Asks a model's objectives what stands at a mask; each is compiled at its first use, and for each number of
    options.

    asked: chooses the objective. blank: `blank(modality)` is a row of zeros of that modality.
    """

    def __init__(
        self,
        experiment: Any,
        variables: dict[str, Any],
        tokenizers: Mapping[str, Tokenizer],
        inputs: Inputs,
        asked: AskedTogether,
        blank: Callable[[str], Row],
    ):
        self._experiment, self._inputs, self._asked, self._blank = experiment, inputs, asked, blank
        self._programs = Programs(experiment, variables)
        self._spoken = SpokenFiller(experiment, tokenizers, inputs, self._programs)

    def __call__(
        self,
        prompt: str,
        options: Sequence[str] | None,
        top: int,
        objective: str | None,
        given: Mapping[str, Any],
    ) -> Classification:
        """The options, or the `top` words of the vocabulary, of `Model.fill`."""
        name = self._asked.chosen((MaskedText, Reserve), objective, "fill")
        part, halves = self._experiment.objectives[name], _halves(prompt)
        _check_options(options, top)
        if isinstance(part, Reserve):
            return self._spoken(name, part, halves, options, given)
        return self._words(name, part, halves, options, top, given)

    def _words(
        self,
        name: str,
        part: MaskedText,
        halves: tuple[str, str],
        options: Sequence[str] | None,
        top: int,
        given: Mapping[str, Any],
    ) -> Classification:
        check_read_beside(name, given, part.others)
        step = next((one for one in self._inputs.of[part.modality].chain if one.vocabulary() is not None), None)
        tokenizer = None if step is None else step.tokenizer
        if step is None or not isinstance(tokenizer, Tokenizer) or isinstance(tokenizer, IdsAlone):
            raise UserError(f"fill(): the model has no tokenizer for {part.modality!r}, which reads the prompt")
        cleaning = self._inputs.of[part.modality].chain[: self._inputs.of[part.modality].chain.index(step)]

        def pieces(text: str) -> list[int]:
            return tokenizer.encode(cleaned) if (cleaned := cleaned_part(text, cleaning)) else []

        ids = [*pieces(halves[0]), part.mask_id, *pieces(halves[1])]
        ids = [tokenizer.bos] * step.bos + ids + [tokenizer.eos] * step.eos
        (length,) = self._inputs.specs[part.modality].shape
        check_room(len(ids), length, part.modality)
        if ids.count(part.mask_id) != 1:
            raise UserError(f"fill(): the prompt has the mask's id {part.mask_id} {ids.count(part.mask_id)} times")
        row = self._inputs.row(part.modality, np.asarray(ids)) | {f"{part.modality}_valid": np.asarray(True)}
        for other in part.others:
            own = self._inputs.row(other, given[other]) if other in given else self._blank(other)
            row |= own | {f"{other}_valid": np.asarray(other in given)}
        logits = self._programs.of(name, _of_words(part, name))([[row]])[0]
        if options is not None:
            chosen = [_one_piece(option, pieces(option)) for option in options]
            return Classification(tuple(options), softmax(logits[chosen]), logits[chosen])
        logits[tokenizer.vocab_size :] = -np.inf  # rows of the table that are no word
        shares = softmax(logits)
        words = np.argsort(-logits[part.first_id : tokenizer.vocab_size], kind="stable")[:top] + part.first_id
        labels = tuple(tokenizer.decode([word]).strip() or f"#{word}" for word in words.tolist())
        return Classification(labels, shares[words], logits[words])


def _of_words(part: MaskedText, name: str) -> Callable[[Any, dict[str, jax.Array]], jax.Array]:
    masking = MaskedAlready(vocab=part.vocab, mask_id=part.mask_id, first_id=part.first_id)
    singles = tuple(
        View(one.input, masking if one.input == part.modality else None, one.tower) for one in parts(part.views()[0])
    )
    view: AnyView = singles[0] if part.fusion is None else Fused(part.fusion, singles)

    def compute(pretrainer: Any, batch: dict[str, jax.Array]) -> jax.Array:
        views = distinct_views({name: SimpleNamespace(views=lambda: (view,))}, pretrainer.fusions)
        rows = {"index": jnp.arange(len(batch[part.modality])), **batch}
        told = Encoding(pretrainer.towers, pretrainer.fusions, Keys(jax.random.key(0), None), frozenset())
        encoded = told.views(views, rows, None)[view]
        own = encoded if isinstance(view, View) else encoded.parts[[one.input for one in singles].index(part.modality)]
        return pretrainer.objectives[name].predicted(own, jnp.argmax(own.chosen, axis=1)[:, None])[:, 0]

    return compute


def _halves(prompt: Any) -> tuple[str, str]:
    if not isinstance(prompt, str):
        raise UserError(f"fill({prompt!r:.60}): a prompt is a text with one {MASK}")
    if (count := prompt.count(MASK)) != 1:
        raise UserError(f"fill({prompt!r:.60}): the prompt has {count} times {MASK}, and one is filled: write it once")
    before, _, behind = prompt.partition(MASK)
    return before.strip(), behind.strip()


def _check_options(options: Any, top: int) -> None:
    if options is None:
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise UserError(f"fill(top={top!r}): the number of words is a whole number from 1 on")
        return
    if isinstance(options, str) or not isinstance(options, Sequence) or not options:
        raise UserError(f"fill(options={options!r:.60}): give a list of one text or more")
    if odd := [option for option in options if not isinstance(option, str) or not option.strip()]:
        raise UserError(f"fill(options=...): {odd[0]!r:.60} is no text")
    if twice := [option for option in options if options.count(option) > 1]:
        raise UserError(f"fill(options=...): {twice[0]!r} comes {options.count(twice[0])} times")


def _one_piece(option: str, found: Sequence[int]) -> int:
    if len(found) != 1:
        raise UserError(
            f"fill(options=...): {option!r} has {len(found)} pieces in the model's vocabulary, and one word is filled: "
            "give words that are one piece"
        )
    return found[0]
