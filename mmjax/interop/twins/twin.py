"""The twin of a model in another project: the model as it can be said there, and what of that isn't quite the same.

What is written is the twin, to the bit. A model whose numbers have no place there, or would compute something else on
the same pixels and ids, has none.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.image import Decode, RandomResizedCrop
from mmjax.errors import UserError
from mmjax.experiment.diff import MISSING, Difference
from mmjax.experiment.graph import build, short_repr
from mmjax.interop.bundle import Bundle
from mmjax.interop.parts import graph
from mmjax.interop.preprocessing.image import Preprocessing

ALIKE = {"gelu", "gelu_tanh"}  # they differ by less than 0.0005 everywhere
SHOWN = 60  # characters of a value in a message
SMALL_EPS = 1e-5  # an epsilon up to this is lost beside the variance of a trained model's states


@dataclass(frozen=True)
class Twin:
    """A model as another project has it, and what of that isn't quite the same.

    bundle: the model as it goes out.
    kind: what it is there, "CLIPModel".
    differs: what isn't quite the same there, a line each. Empty: pictures are the same to the byte, texts to the id.
    notes: what is told besides, and changes nothing of what the files here give.
    swap: two ids of the text's tokenizer that have changed places.
    names: whether names of special pieces within a text are read there as here; else a note says so.
    """

    bundle: Bundle
    kind: str
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    swap: tuple[int, int] = (0, 0)
    names: bool = True

    def told(self, differs: Sequence[str] = (), notes: Sequence[str] = ()) -> "Twin":
        """A copy with more differences and notes."""
        return replace(self, differs=(*self.differs, *differs), notes=(*self.notes, *notes))


def refused(twin: Twin, exact: bool, there: str) -> None:
    """Raises UserError where the twin must be exact, and isn't. there: how the project is called."""
    if exact and twin.differs:
        lines = "\n".join(f"  {line}" for line in twin.differs)
        raise UserError(
            f"{twin.bundle.source or 'the model'}: as {twin.kind} of {there} it isn't quite the same:\n{lines}\n"
            "--inexact writes it all the same, and lists that in its card"
        )


def listed_differences(differences: Sequence[Difference]) -> str:
    """A line each, for a message."""
    return "\n".join(f"  {line}" for line in difference_lines(differences))


def difference_lines(differences: Sequence[Difference]) -> list[str]:
    """A line each."""
    return [f"{d.path}: {_shown(d.left)} there, {_shown(d.right)} here" for d in differences]


def _shown(value: Any) -> str:
    if value is MISSING:
        return "none"
    return value.__name__ if isinstance(value, type) else " ".join(short_repr(value, SHOWN).split())


def slight(difference: Difference) -> bool:
    """True if two towers that differ in this compute nearly the same."""
    kind = difference.path.split(".", 2)[-1].removeprefix("blocks.")  # of a tower's own blocks, not of what is within
    sides = difference.left, difference.right
    if kind == "activation":
        return set(sides) <= ALIKE
    return kind == "norm_eps" and all(0 < eps <= SMALL_EPS for eps in sides)


def accepted(bundle: Bundle, differences: Sequence[Difference]) -> tuple[Bundle, list[str]]:
    """The model with theirs in the place of what differs slightly, and the lines that tell it."""
    bundle = with_config(bundle)
    for difference in differences:
        group, name, *inner, field = difference.path.split(".")
        part = getattr(bundle.config, group)[name]
        for step in inner:  # a copy: other towers may hold the same blocks
            setattr(part, step, fdl.copy_with(getattr(part, step)))
            part = getattr(part, step)
        setattr(part, field, difference.left)
    return bundle, difference_lines(differences)


def with_config(bundle: Bundle, **transforms: Any) -> Bundle:
    """A copy whose config can be changed; transforms: other chains, as built, by modality."""
    config = copy.deepcopy(bundle.config)
    for modality, chain in transforms.items():
        config.data.transforms[modality] = graph(chain)
    return replace(bundle, config=config)


def chain_of(bundle: Bundle, modality: str) -> tuple[Transform, ...]:
    """The transforms of a modality, built."""
    return tuple(build(step) for step in bundle.config.data.transforms[modality])


def picture_twin(twin: Twin, said: Callable[..., Any], read: Callable[[Any], Preprocessing]) -> Twin:
    """The twin with a chain of pictures that the project can express.

    said: the chain, mean, std and `exact` -> its config.  read: the inverse.

    Raises:
        UserError: there is nothing near.
    """
    tower, ours = build(twin.bundle.config.towers["image"]), chain_of(twin.bundle, "image")
    theirs = read(said(ours, tower.mean, tower.std, exact=False)).transforms
    judged = tuple(transform for transform in ours if not transform.random or hasattr(transform, "size"))
    differs, notes = [], []
    mine, other = ([t for t in chain if not isinstance(t, Decode)] for chain in (judged, theirs))
    if mine != other:
        differs.append(f"pictures: {_chain(other)} there, {_chain(mine)} here")
    backgrounds = [
        next((t.background for t in c if isinstance(t, Decode)), Decode.background) for c in (theirs, judged)
    ]
    if backgrounds[0] != backgrounds[1]:
        differs.append(f"what is transparent: background={backgrounds[0]} there, {backgrounds[1]} here")
    if any(getattr(t, "upright", False) for t in ours) and not any(getattr(t, "upright", False) for t in theirs):
        notes.append("files are turned upright here (EXIF); there it is the caller's part")
    return replace(twin, bundle=with_config(twin.bundle, image=theirs)).told(differs, notes)


def _chain(chain: Sequence[Any]) -> str:
    """Without what is as usual."""
    told = []
    for transform in chain:
        values = {f.name: getattr(transform, f.name) for f in fields(transform) if f.name != "area"}
        usual = {f.name: f.default for f in fields(transform)}
        given = ", ".join(f"{name}={value!r}" for name, value in values.items() if value != usual[name])
        told.append(f"{type(transform).__name__}({given})")
        if isinstance(transform, RandomResizedCrop):
            told[-1] += " (in evaluation the middle square, then resized)"
    return ", ".join(told) or "nothing"


def swapped(variables: dict[str, Any], swap: tuple[int, int]) -> dict[str, Any]:
    """The variables with two rows of the table of words swapped."""
    tower = dict(variables["params"]["towers_text"])
    table = np.array(tower["token"]["embedding"])
    table[list(swap)] = table[list(swap[::-1])]
    tower["token"] = {**tower["token"], "embedding": table}
    return {**variables, "params": {**variables["params"], "towers_text": tower}}
