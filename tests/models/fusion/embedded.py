"""Embeddings of three inputs, with every choice of missing ones, and fusions of them beside plain numpy."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.fusion.concatenated import Concatenated
from mmjax.models.fusion.gated import Gated
from mmjax.models.fusion.late import Late
from mmjax.models.fusion.low_rank import LowRank
from mmjax.models.fusion.missing import INPUTS
from mmjax.models.fusion.tensor import TensorFusion
from tests.models import oracle

SIZES = {"text": 3, "audio": 2, "image": 4}  # in no order of names
THERE = np.array(list(itertools.product([True, False], repeat=3)))  # of each example: audio, image, text
KEYS = jax.vmap(partial(jax.random.fold_in, jax.random.key(7)))(jnp.arange(len(THERE)))
FUSIONS: dict[str, Any] = {
    "concatenated": Concatenated(embed_dim=5, hidden=(6, 7)),
    "linear": Concatenated(embed_dim=5),
    "gated": Gated(embed_dim=5),
    "tensor": TensorFusion(embed_dim=5, hidden=(6,)),
    "projected": TensorFusion(embed_dim=5, width=2),
    "low_rank": LowRank(embed_dim=5, rank=3),
    **{rule: Late(classes=5, rule=rule) for rule in ("mean", "product", "vote", "learned")},
}


def given(there: np.ndarray = THERE, names: Sequence[str] = tuple(SIZES), lacking: float = np.nan) -> dict[str, Any]:
    """Each input's embedding as one token, `lacking` where an example lacks it. there: by the sorted names of SIZES."""
    found = {}
    for place, name in enumerate(sorted(SIZES)):
        x = np.random.default_rng(place).normal(size=(len(there), 1, SIZES[name])).astype(np.float32)
        found[name] = (np.where(there[:, place, None, None], x, np.float32(lacking)), there[:, place, None])
    return {name: found[name] for name in names}


def embedding(fusion: Any, params: Any, tokens: Mapping[str, Any], **told: Any) -> np.ndarray:
    """The fusion's embedding, compiled."""
    return oracle.apply(fusion, params, tokens, **told)[1]


def params_of(fusion: Any, names: tuple[str, ...] = tuple(SIZES)) -> Any:
    """Random parameters for these inputs."""
    return _params(fusion, names)


@cache
def _params(fusion: Any, names: tuple[str, ...]) -> Any:
    return oracle.params_of(fusion, given(names=names))


def remaining(there: np.ndarray, rate: float, keys: Any) -> np.ndarray:
    """The inputs that aren't dropped, by plain loops."""
    found = np.zeros_like(there)
    for row, key in enumerate(keys):
        numbers = np.asarray(jax.random.uniform(jax.random.fold_in(key, INPUTS), (there.shape[1],)))
        here = [place for place in range(there.shape[1]) if there[row, place]]
        for place in here:
            found[row, place] = numbers[place] >= rate or numbers[place] == max(numbers[other] for other in here)
    return found


def check_twin(fusion: Any, twin: Callable[[Any, dict[str, Any]], Any], names: tuple[str, ...] = tuple(SIZES)) -> None:
    """Compares with `twin(parameters, {name: embedding})`, which is given one example's inputs that are there, in the
    order of names, in float64; once without and once with inputs dropped."""
    params, tokens = params_of(fusion, names), given(names=names)
    weights, order = oracle.as64(params)["params"], sorted(names)
    there = np.concatenate([tokens[name][1] for name in order], axis=1)
    dropping = fusion.clone(drop_inputs=0.6)
    left = remaining(there, 0.6, KEYS)
    assert (left != there).any()
    assert (left.any(axis=1) == there.any(axis=1)).all()
    found = [embedding(fusion, params, tokens), embedding(dropping, params, tokens, train=True, keys=KEYS)]
    for got, here in zip(found, (there, left), strict=True):
        assert got.dtype == np.float32
        for row in range(len(there)):
            vectors = {n: np.float64(tokens[n][0][row, 0]) for place, n in enumerate(order) if here[row, place]}
            np.testing.assert_allclose(got[row], twin(weights, vectors), atol=1e-5, err_msg=str(here[row]))


def without(params: Any, name: str) -> Any:
    """The parameters that don't bear an input's name."""
    if not isinstance(params, dict):
        return params
    return {key: without(value, name) for key, value in params.items() if not key.endswith(f"_{name}")}
