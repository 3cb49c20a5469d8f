"""What tests of tables of parameters share: nested dicts by paths, and tables by their shapes alone."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from mmjax.experiment.graph import build
from mmjax.interop.parts import Parts


def flat(tree) -> dict[str, Any]:
    """By paths, `params/towers_text/position`."""
    return flatten_dict(tree, sep="/")


def built(towers, objectives):
    """Of configs."""
    return Parts(*({name: build(config) for name, config in group.items()} for group in (towers, objectives)))


def hollow(shapes):
    """Arrays that take no memory."""
    return {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}


def taken(rules, arrays):
    """The shapes of ours by path, and the names of theirs that were read; of stacked layers the first is taken."""
    found, used = {}, set()
    for rule in rules:
        layers = range(rule.first, rule.first + max(1, rule.layers))
        sets = [[name.replace("{layer}", str(i)) for name in rule.theirs] for i in layers]
        used |= {name for names in sets for name in names}
        shapes = [[arrays[name].shape for name in names] for names in sets]
        assert all(shape == shapes[0] for shape in shapes)
        one = rule.take(*(arrays[name] for name in sets[0]))
        found[rule.ours] = (rule.layers, *one.shape) if rule.layers else one.shape
    return found, used


def same_gradients(ours, theirs, tolerance):
    """Each leaf, by its norm or a hundredth of all: a key's bias has a true gradient of 0."""
    assert ours.keys() == theirs.keys()
    norms = {path: np.linalg.norm(leaf) for path, leaf in theirs.items()}
    whole = np.linalg.norm(list(norms.values()))
    for path, leaf in theirs.items():
        error = np.linalg.norm(np.asarray(ours[path]) - leaf)
        assert error <= tolerance * max(norms[path], 1e-2 * whole), (path, error, norms[path])
