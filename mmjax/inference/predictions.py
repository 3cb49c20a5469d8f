"""Labels, and whether two belong together, as a model's objectives predict them of inputs that are read together."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from mmjax.errors import UserError, unknown
from mmjax.experiment.definition import Experiment
from mmjax.inference.classification import Classification
from mmjax.inference.inputs import Inputs, Row
from mmjax.inference.row_embedder import RowEmbedder, chunks
from mmjax.objectives.contract import parts
from mmjax.objectives.labels.classify import Classify
from mmjax.objectives.labels.regress import Regress
from mmjax.objectives.matching import Matching


class AskedTogether:
    """Asks the objectives of a model for their logits; each is compiled at its first use.

    blank: `blank(modality)` is a row of zeros of that modality, for an input that isn't given.
    """

    def __init__(self, experiment: Experiment, variables: dict[str, Any], inputs: Inputs, blank: Callable[[str], Row]):
        self._experiment, self._variables, self._inputs, self._blank = experiment, variables, inputs, blank
        self._computed: dict[str, RowEmbedder] = {}

    def predicted(
        self,
        given: Mapping[str, Any],
        objective: str | None,
        batch_size: int,
        kinds: tuple[type, ...] = (Classify, Regress),
    ) -> Any:
        """The labels or numbers of `Model.predict`, of an objective of these kinds. An input that isn't given is
        lacking; only a fusion reads without it."""
        name = self.chosen(kinds, objective, "predict")
        part: Any = self._experiment.objectives[name]
        logits, alone = self.logits(name, given, "predict", batch_size, lacking=part.fusion is not None)
        if isinstance(part, Regress):
            return logits[0] if alone else logits
        shares = expit(logits) if part.loss == "sigmoid" else softmax(logits, axis=-1)
        labels = labels_of(self._experiment, name)
        return Classification(labels, shares[0], logits[0]) if alone else Classification(labels, shares, logits)

    def matched(self, given: Mapping[str, Any], objective: str | None, batch_size: int) -> Float[np.ndarray, "*n"]:
        """The probabilities of `Model.match`."""
        name = self.chosen((Matching,), objective, "match")
        logits, alone = self.logits(name, given, "match", batch_size, lacking=False)
        shares = softmax(logits, axis=-1)[:, 1]
        return shares[0] if alone else shares

    def chosen(self, kinds: tuple[type, ...], name: str | None, who: str) -> str:
        """The name of the model's objective of one of these kinds.

        Raises:
            UserError: there is none, or several and no name, or the name is another's.
        """
        objectives = self._experiment.objectives
        able = [each for each, one in objectives.items() if isinstance(one, kinds)]
        wanted = " or ".join(kind.__name__ for kind in kinds)
        if not able:
            raise UserError(
                f"{who}() needs a model that was trained with a {wanted} objective, and this one's are "
                f"{', '.join(f'{each} ({type(one).__name__})' for each, one in objectives.items())}"
            )
        if name is not None and name not in able:
            raise UserError(unknown(f"{who}(objective=...) asks", name, able, f"{wanted} objectives"))
        if name is None and len(able) > 1:
            raise UserError(f"{who}() can ask {', '.join(able)}: say which, {who}(..., objective={able[0]!r})")
        return able[0] if name is None else name

    def read_by(self, objective: str) -> tuple[str, ...]:
        """The inputs that an objective reads."""
        views = self._experiment.objectives[objective].views()
        return tuple(dict.fromkeys(single.input for view in views for single in parts(view)))

    def logits(
        self, objective: str, given: Mapping[str, Any], who: str, batch_size: int, lacking: bool
    ) -> tuple[Float[np.ndarray, "n c"], bool]:
        """The logits of each example, and whether a single one was given.

        given: by modality an input or several, as many of each. lacking: whether an input may be left out; the
        fusion then reads the others.

        Raises:
            UserError: an input is given that the objective doesn't read, one is lacking, or their numbers differ.
        """
        read = self.read_by(objective)
        for name in given:
            if name not in read:
                raise UserError(unknown(f"{who}() was given", name, read, f"inputs that {objective!r} reads"))
        if missing := [name for name in read if name not in given and not lacking]:
            raise UserError(f"{who}() needs {' and '.join(f'{name}=...' for name in read)}; {missing[0]} isn't given")
        listed = {name: self._inputs.listed(name, value) for name, value in given.items()}
        items, alone = {name: list(some) for name, (some, _) in listed.items()}, [one for _, one in listed.values()]
        counts = {name: len(some) for name, some in items.items()}
        if len(set(counts.values())) > 1 or len(set(alone)) > 1:
            raise UserError(
                f"{who}() reads the inputs of each example together, and was given "
                f"{', '.join(f'{count} of {name}' for name, count in counts.items())}: give as many of each"
            )
        count = next(iter(counts.values()))
        blanks = {name: self._blank(name) for name in read if name not in given}

        def row(place: int) -> Row:
            made: Row = {}
            for name in read:
                there = name in given
                own = self._inputs.row(name, items[name][place], None if alone[0] else place) if there else blanks[name]
                made |= own | {f"{name}_valid": np.asarray(there)}
            return made

        if not count:
            raise UserError(f"{who}() was given no example: the lists are empty")
        rows = ([row(place) for place in some] for some in chunks(range(count), batch_size))
        return self._of(objective)(rows), alone[0]

    def _of(self, objective: str) -> RowEmbedder:
        if objective not in self._computed:
            pretrainer = self._experiment.pretrainer()

            def compute(variables: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
                found = pretrainer.apply(variables, batch, objective, method="predict")
                return jax.numpy.asarray(found, jax.numpy.float32)

            self._computed[objective] = RowEmbedder(pretrainer, self._variables, compute)
        return self._computed[objective]


def labels_of(experiment: Experiment, objective: str) -> tuple[str, ...]:
    """The names of the classes that a `Classify` objective predicts: those of its label's chain, or their numbers."""
    part = experiment.objectives[objective]
    chain = experiment.data.transforms.get(part.label, ())
    for transform in chain:
        if names := tuple(getattr(transform, "classes", ()) or ()):
            return tuple(map(str, names))
    return tuple(map(str, range(part.classes)))
