"""Maps of what each word looks at in other inputs, by the attention of the fusion that reads both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.data.chains import Chains, Row
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError, not_among, unknown
from mmjax.models.fusion.attention_flow import Spans, relevance, rollout, spans_of
from mmjax.models.layers.attention_maps import OFFSETS, WEIGHTS
from mmjax.objectives.contract import View, parts
from mmjax.objectives.labels.classify import Classify
from mmjax.objectives.matching import Matching
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime.mesh import ACTIVATION_RULES

MapRule = Literal["relevance", "rollout"]
Variables = Mapping[str, Any]


@dataclass(frozen=True)
class WordMaps:
    """The looks of one example's words.

    words: in order; a word of several pieces is one.
    maps: by input, `[words, *grid]` of its patches, at least 0: how much each word looks at each of them.
    """

    words: tuple[str, ...]
    maps: dict[str, Float[np.ndarray, "w *grid"]]


class AttentionMaps:
    """Follows the attention of a model's fusions (`attention_flow`): for an objective that reads one, `Matching` or
    `Classify`.

    rule: `relevance`, of each token for the objective's score, the logit of belonging together or of the likeliest
    class; or `rollout`, of the weights alone. What towers do before the fusion isn't followed: a token stands for its
    own place.
    """

    def __init__(self, pretrainer: Pretrainer, chains: Chains):
        self._pretrainer, self._chains = pretrainer, chains

    def able(self) -> list[str]:
        """The objectives whose fusion can be followed, and that read words beside something else."""
        found = []
        for name, one in self._pretrainer.objectives.items():
            fusion = one.fusion if isinstance(one, Matching | Classify) else None
            if fusion is not None and _followed(self._pretrainer.fusions[fusion]):
                read = self.inputs(name)
                words = [each for each in read if self._tokenizer(each) is not None]
                found += [name] if 0 < len(words) < len(read) and self._chains.specs.keys() >= set(read) else []
        return found

    def chosen(self, objective: str | None, rule: str, who: str) -> str:
        """The objective of that name, or the first that can be followed; and checks the rule.

        Raises:
            UserError: there is none, or another rule.
        """
        if rule not in get_args(MapRule):
            raise UserError(not_among(f"{who}(rule=...)", rule, get_args(MapRule)))
        able = self.able()
        if not able:
            raise UserError(
                f"{who} needs a model with a fusion of tokens whose attention can be followed (Merged, Cross or "
                "Multiway), and a Matching or Classify objective that reads words by it"
            )
        if objective is not None and objective not in able:
            raise UserError(unknown(f"{who}(objective=...) asks", objective, able, "objectives that can be followed"))
        return able[0] if objective is None else objective

    def inputs(self, objective: str) -> tuple[str, ...]:
        """The inputs that an objective reads."""
        return tuple(view.input for view in self._views(objective))

    def matrix(self, variables: Variables, batch: Any, objective: str, rule: str) -> Float[Array, "b n n"]:
        """The looks of each token of the fusion at each other one; a pure function, to be compiled. batch: of all
        inputs of the objective."""
        pretrainer, fusion = self._pretrainer, f"fusions_{self._pretrainer.objectives[objective].fusion}"

        def scored(offsets: Any) -> tuple[Any, Any]:
            given = dict(variables) if offsets is None else {**variables, OFFSETS: {fusion: offsets}}
            with nn.logical_axis_rules(ACTIVATION_RULES):
                logits, kept = pretrainer.apply(given, batch, objective, method="predict", mutable=[WEIGHTS])  # pyright: ignore[reportGeneralTypeIssues]
            if isinstance(pretrainer.objectives[objective], Matching):
                return logits[:, 1].sum(), kept[WEIGHTS][fusion]
            return logits.max(axis=-1).sum(), kept[WEIGHTS][fusion]

        module, lengths = pretrainer.fusions[pretrainer.objectives[objective].fusion], self._lengths(batch, objective)
        if rule == "rollout":
            spans, steps = module.attention_steps(scored(None)[1], lengths)
            found = rollout(steps, _count(spans))
        else:
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(scored, None)[1])
            gradients, kept = jax.grad(scored, has_aux=True)(zeros)
            spans, steps = module.attention_steps(kept, lengths)
            found = relevance(steps, module.attention_steps(gradients, lengths)[1], _count(spans))
        # Of each input in the objective's order, however the fusion puts them; its own tokens (a CLS) are left out.
        places = np.concatenate([np.arange(_count(spans))[spans[name]] for name in lengths])
        return found[:, places][:, :, places]

    def of_words(self, matrix: Float[np.ndarray, "b n n"], batch: Row, objective: str) -> list[WordMaps]:
        """The maps of each example, from `matrix` of the same batch."""
        spans = spans_of(self._lengths(batch, objective))
        towers = {view.input: self._pretrainer.towers[view.by] for view in self._views(objective)}
        own = {name: slice(span.start + towers[name].prefix, span.stop) for name, span in spans.items()}
        reader, tokenizer = next((name, one) for name in towers if (one := self._tokenizer(name)) is not None)
        mask = batch.get(f"{reader}_mask")
        found = []
        for row, looks in enumerate(matrix):
            ids = batch[reader][row]
            words = words_of_pieces(tokenizer, ids if mask is None else ids[: int(mask[row].sum())])  # padding is last
            maps = {}
            for name in (name for name in towers if name != reader):
                grid = tuple(int(size) for size in towers[name].grid(batch[name]))
                seen = looks[own[reader], own[name]]
                each = [seen[places].mean(axis=0).reshape(grid) for _, places in words]
                maps[name] = np.stack(each) if each else np.zeros((0, *grid), seen.dtype)
            found.append(WordMaps(tuple(word for word, _ in words), maps))
        return found

    def _views(self, objective: str) -> tuple[View, ...]:
        return tuple(one for view in self._pretrainer.objectives[objective].views() for one in parts(view))

    def _lengths(self, batch: Any, objective: str) -> dict[str, int]:
        """The number of tokens that a tower gives of each input."""
        towers = {view.input: self._pretrainer.towers[view.by] for view in self._views(objective)}
        return {name: tower.prefix + math.prod(tower.grid(batch[name])) for name, tower in towers.items()}

    def _tokenizer(self, name: str) -> Tokenizer | None:
        """The tokenizer of an input of words; None of any other."""
        spec = self._chains.specs.get(name)
        chain: Any = self._chains.transforms[name] if spec is not None and spec.kind.words else ()
        found = next((step.tokenizer for step in chain if step.vocabulary() is not None), None)
        return found if isinstance(found, Tokenizer) else None


def _followed(fusion: Any) -> bool:
    """True if a fusion's attention can be followed: it is in its own blocks, not in a tower's trunk."""
    return hasattr(fusion, "attention_steps") and getattr(fusion, "trunk", None) is None


def words_of_pieces(tokenizer: Tokenizer, ids: Int[np.ndarray, " l"]) -> list[tuple[str, list[int]]]:
    """The words of a text with the places of each one's pieces; those that begin, end or fill up a text are no words.

    A word ends where the text of all pieces so far goes on behind white space.
    """
    special = (tokenizer.pad, tokenizer.bos, tokenizer.eos)
    words: list[tuple[str, list[int]]] = []
    known: list[int] = []
    before, waiting = "", list[int]()
    for place, piece in enumerate(map(int, ids)):
        if piece in special:
            continue
        known.append(piece)
        waiting.append(place)
        text = tokenizer.decode(known)
        new = text[len(before) :]
        if not new.strip():
            continue  # a space alone: it belongs to the word that follows
        if words and not new[0].isspace():
            words[-1] = (words[-1][0] + new, words[-1][1] + waiting)
        else:
            words.append((new.strip(), waiting))
        before, waiting = text, []
    return words


def _count(spans: Spans) -> int:
    return max(span.stop for span in spans.values())
