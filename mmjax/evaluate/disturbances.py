"""Disturbs an input of every example of a split: noise in pictures and sounds, wrong words in texts.

What a model loses by it, evaluators tell beside what it loses without the input (Liang et al. 2021, MultiBench,
arXiv:2107.07502).
"""

import zlib
from collections.abc import Mapping

import numpy as np

from mmjax.data.chains import Chains, Row
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError, unknown

Disturbed = tuple[str, float]  # an input, and by how much: the kind of the input says of what (`Input.amount`)


def disturbance_name(disturb: Disturbed, kinds: Mapping[str, type[Input]], who: str) -> str:
    """The part of a metric's name that tells a disturbance: `disturbed image std=0.1`.

    Raises UserError, for `who`, where there is no such input, or it can't be disturbed.
    """
    name, amount = disturb
    able = {each: kind.amount for each, kind in kinds.items() if kind.amount}
    if name not in able:
        raise UserError(unknown(f"{who}(disturb=...) has", name, able, "inputs that can be disturbed"))
    return f"disturbed {name} {able[name]}={amount:g}"


def disturbed_rows(batch: Row, disturb: Disturbed, chains: Chains) -> Row:
    """A batch in which an input of each example is disturbed.

    Random numbers are drawn by the example's `id` and the input's name alone: they are the same for any batch size, any
    number of hosts and any amount, so that more noise is more of the same noise. Examples without the input stay as
    they are.

    Raises UserError where the amount isn't allowed, or the input is none that can be disturbed.
    """
    name, amount = disturb
    kind, chain, values = chains.specs[name].kind, chains.transforms[name], batch[name].copy()
    mask = batch.get(f"{name}_mask")
    for row in np.flatnonzero(batch[f"{name}_valid"]):
        random = np.random.default_rng((zlib.crc32(name.encode()), *map(int, batch["id"][row])))
        values[row] = kind.disturbed(values[row], None if mask is None else mask[row], amount, random, chain)
    return {**batch, name: values}
