"""Tables of parameters that two projects name and lay out differently, read in either direction.

A table is a list of `Rule`s, one for each of our parameters. What both directions do is to move numbers about, never to
compute with them, so that there and back gives the same bits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UserError, nearest
from mmjax.models.layers.blocks import Blocks

LISTED = 8  # names in a message, before it only counts
LAYER = "{layer}"  # in their names, where ours is stacked over the layers

Take = Callable[..., np.ndarray]
Give = Callable[[np.ndarray], Sequence[np.ndarray]]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _alone(array: np.ndarray) -> Sequence[np.ndarray]:
    return (array,)


class Rule(NamedTuple):
    """One of our parameters.

    ours: its path in the variables, `params/towers_text/position`.
    theirs: the arrays that it is made of; with `{layer}` in the names there is such a set for each of `layers` layers,
        and ours has the layers as its first axis.
    take: their arrays (of one layer) -> ours.  give: the inverse.
    first: the number of the first of the layers in the names.
    """

    ours: str
    theirs: tuple[str, ...]
    take: Take = _same
    give: Give = _alone
    layers: int = 0
    first: int = 0


def lacking(rules: Iterable[Rule], tensors: Mapping[str, np.ndarray]) -> int:
    """The number of their arrays that the rules read and that are missing."""
    most = len(tensors) + 1  # of more layers than arrays some are missing
    return sum(name not in tensors for rule in rules for names in _names(rule, at_most=most) for name in names)


def take(
    rules: Iterable[Rule], tensors: Mapping[str, np.ndarray], where: str, ignored: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """Our variables, a nested dict, of their arrays.

    where: whose they are, for messages.  ignored: says which of their names hold nothing that we need.

    Raises:
        UserError: an array is missing, or isn't of the config's sizes, or there is one that no rule reads.
    """
    rules = list(rules)
    check_names(rules, tensors, where, ignored)
    flat = {}
    for rule in rules:
        each = [(names, [np.asarray(tensors[name]) for name in names]) for names in _names(rule)]
        parts = [_taken(rule, arrays, names, where) for names, arrays in each]
        try:
            flat[rule.ours] = np.stack(parts) if rule.layers else parts[0]
        except ValueError as error:  # layers of several shapes
            names = ", ".join(name for name in each[0][0])
            raise UserError(
                f"{where}: the layers' {names} aren't of one shape, so {rule.ours} can't be made"
            ) from error
    return unflatten_dict(flat, sep="/")


def check_names(
    rules: Iterable[Rule], tensors: Mapping[str, Any], where: str, ignored: Callable[[str], bool] | None = None
) -> None:
    """Checks that the names are those that the rules read; of `tensors` only the names are used. Raises as `take`."""
    read: set[str] = set()
    missing: list[str] = []
    for rule in rules:
        for names in _names(rule, at_most=len(tensors) + 1):  # of more layers than arrays some are missing
            read.update(names)
            missing += [name for name in names if name not in tensors]
    if missing:
        near = nearest(missing[0], tensors)
        raise UserError(f"{where} lacks {len(missing)} arrays that this model needs: {_listed(missing)}{near}")
    unread = [name for name in tensors if name not in read and not (ignored and ignored(name))]
    if unread:
        raise UserError(f"{where} has {len(unread)} arrays that have no place in this model: {_listed(unread)}")


def _names(rule: Rule, at_most: int | None = None) -> Iterator[list[str]]:
    """Theirs of each layer, of at most so many layers."""
    layers = max(1, rule.layers)
    for layer in range(layers if at_most is None else min(layers, at_most)):
        yield [name.replace(LAYER, str(rule.first + layer)) for name in rule.theirs]


def give(rules: Iterable[Rule], variables: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Their arrays by name, of our variables (a nested dict).

    Raises:
        UserError: one of our parameters is missing, or one has no rule.
    """
    flat: dict[str, Any] = flatten_dict(variables, sep="/")
    tensors: dict[str, np.ndarray] = {}
    rules = list(rules)
    if missing := [rule.ours for rule in rules if rule.ours not in flat]:
        raise UserError(f"{where} lacks {_listed(missing)}{nearest(missing[0], flat)}")
    if left := [path for path in flat if path not in {rule.ours for rule in rules}]:
        raise UserError(f"{where}: {len(left)} parameters have no place there: {_listed(left)}")
    for rule in rules:
        ours = np.asarray(flat[rule.ours])
        for layer, array in enumerate(ours if rule.layers else [ours]):
            names = [name.replace(LAYER, str(rule.first + layer)) for name in rule.theirs]
            tensors |= dict(zip(names, (np.asarray(part, order="C") for part in rule.give(array)), strict=True))
    return tensors


# --- the layouts of PyTorch: what a block of a transformer is made of ---


def linear(ours: str, theirs: str, layers: int = 0, bias: bool = True) -> list[Rule]:
    """A Dense layer from `<theirs>.weight` [out, in] and `.bias`."""
    kernel = Rule(f"{ours}/kernel", (f"{theirs}.weight",), np.transpose, lambda w: (w.T,), layers)
    return [kernel, Rule(f"{ours}/bias", (f"{theirs}.bias",), layers=layers)] if bias else [kernel]


def norm(ours: str, theirs: str, layers: int = 0) -> list[Rule]:
    """A LayerNorm from `.weight` and `.bias`."""
    return [
        Rule(f"{ours}/scale", (f"{theirs}.weight",), layers=layers),
        Rule(f"{ours}/bias", (f"{theirs}.bias",), layers=layers),
    ]


def heads_in(ours: str, theirs: Sequence[str], heads: int, layers: int = 0) -> list[Rule]:
    """`HeadsIn`, kernel [D, heads, parts, head_dim], from one Linear for each part (query, key, value)."""
    count = len(theirs)

    def kernel(*weights: np.ndarray) -> np.ndarray:
        return np.stack([w.T.reshape(w.shape[1], heads, -1) for w in weights], axis=2)

    def weights(kernel: np.ndarray) -> Sequence[np.ndarray]:
        return [kernel[:, :, i].reshape(len(kernel), -1).T for i in range(count)]

    return [
        Rule(f"{ours}/kernel", tuple(f"{name}.weight" for name in theirs), kernel, weights, layers),
        Rule(
            f"{ours}/bias",
            tuple(f"{name}.bias" for name in theirs),
            lambda *biases: np.stack([b.reshape(heads, -1) for b in biases], axis=1),
            lambda bias: [bias[:, i].reshape(-1) for i in range(count)],
            layers,
        ),
    ]


def heads_in_joined(ours: str, theirs: str, heads: int, layers: int = 0, dot: str = ".", parts: int = 3) -> list[Rule]:
    """`HeadsIn` of query, key and value (or of so many `parts`) from one matrix [3 D, D], `<theirs>.weight` (or
    `_weight`: dot="_")."""

    def kernel(weight: np.ndarray) -> np.ndarray:  # [3 D, D] -> [D, heads, 3, head_dim]
        return np.moveaxis(weight.reshape(parts, heads, -1, weight.shape[1]), -1, 0).swapaxes(1, 2)

    def weight(kernel: np.ndarray) -> Sequence[np.ndarray]:
        return (np.moveaxis(kernel.swapaxes(1, 2), 0, -1).reshape(-1, len(kernel)),)

    return [
        Rule(f"{ours}/kernel", (f"{theirs}{dot}weight",), kernel, weight, layers),
        Rule(
            f"{ours}/bias",
            (f"{theirs}{dot}bias",),
            lambda bias: bias.reshape(parts, heads, -1).swapaxes(0, 1),
            lambda bias: (bias.swapaxes(0, 1).reshape(-1),),
            layers,
        ),
    ]


def heads_out(ours: str, theirs: str, heads: int, layers: int = 0) -> list[Rule]:
    """`HeadsOut`, kernel [heads, head_dim, D], from a Linear."""
    return [
        Rule(
            f"{ours}/kernel",
            (f"{theirs}.weight",),
            lambda w: w.T.reshape(heads, -1, w.shape[0]),
            lambda kernel: (kernel.reshape(-1, kernel.shape[-1]).T,),
            layers,
        ),
        Rule(f"{ours}/bias", (f"{theirs}.bias",), layers=layers),
    ]


def patches(ours: str, theirs: str, shape: tuple[int, int, int]) -> Rule:
    """A stem's kernel [rows * columns * channels, D] from a convolution's `.weight` [D, channels, rows, columns].

    shape: rows, columns and channels of a patch.
    """
    return Rule(
        f"{ours}/kernel",
        (f"{theirs}.weight",),
        lambda weight: weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)),
        lambda kernel: (kernel.reshape(*shape, -1).transpose(3, 2, 0, 1),),
    )


def convolution(ours: str, theirs: str, layers: int = 0, first: int = 0) -> Rule:
    """A kernel [rows, columns, in, out] from `<theirs>.weight` [out, in, rows, columns]; there is no bias."""
    return Rule(
        f"{ours}/kernel",
        (f"{theirs}.weight",),
        lambda weight: weight.transpose(2, 3, 1, 0),
        lambda kernel: (kernel.transpose(3, 2, 0, 1),),
        layers,
        first,
    )


def batch_norm(ours: str, theirs: str, layers: int = 0, first: int = 0) -> list[Rule]:
    """A BatchNorm, its running statistics too. ours: the path below the collection, `towers_image/trunk/norm0`."""
    names = {
        "params": {"scale": "weight", "bias": "bias"},
        "batch_stats": {"mean": "running_mean", "var": "running_var"},
    }
    return [
        Rule(f"{collection}/{ours}/{part}", (f"{theirs}.{name}",), layers=layers, first=first)
        for collection, parts in names.items()
        for part, name in parts.items()
    ]


def leading(ours: str, theirs: str, axes: int) -> Rule:
    """An array that theirs hold with so many axes of size 1 before ours."""
    return Rule(ours, (theirs,), lambda array: array.reshape(array.shape[axes:]), lambda a: (a[(None,) * axes],))


class BlockNames(NamedTuple):
    """The names of a block's parts, after the name of its layer."""

    query: str
    key: str
    value: str
    out: str
    norm_attention: str
    norm_mlp: str
    mlp_in: str
    mlp_out: str


def blocks(ours: str, theirs: str, names: BlockNames, sizes: Blocks) -> list[Rule]:
    """All blocks of a `Transformer` at the path `ours`. theirs: the name of a layer, with `{layer}` in it."""
    return block(f"{ours}/blocks", theirs, names, sizes)


def block(ours: str, theirs: str, names: BlockNames, sizes: Blocks) -> list[Rule]:
    """A `Block` at the path `ours`, scanned over `sizes.depth` layers. theirs: as in `blocks`."""
    heads, layers = sizes.heads, sizes.depth
    at = {part: f"{theirs}.{name}" for part, name in names._asdict().items()}
    return [
        *heads_in(f"{ours}/attention/qkv", (at["query"], at["key"], at["value"]), heads, layers),
        *heads_out(f"{ours}/attention/out", at["out"], heads, layers),
        *norm(f"{ours}/norm_attention", at["norm_attention"], layers),
        *norm(f"{ours}/norm_mlp", at["norm_mlp"], layers),
        *linear(f"{ours}/mlp/in", at["mlp_in"], layers),
        *linear(f"{ours}/mlp/out", at["mlp_out"], layers),
    ]


def _taken(rule: Rule, arrays: Sequence[np.ndarray], names: Sequence[str], where: str) -> np.ndarray:
    try:
        return rule.take(*arrays)
    except (ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in zip(names, arrays, strict=True))
        raise UserError(f"{where}: the sizes of {shapes} aren't those of the config ({error})") from error


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
