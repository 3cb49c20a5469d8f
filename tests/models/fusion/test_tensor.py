import itertools
import math

import numpy as np
import pytest

from mmjax.models.fusion.tensor import TensorFusion
from tests.models import oracle
from tests.models.fusion.embedded import FUSIONS, SIZES, THERE, check_twin, embedding, given, params_of, without

ORDER = sorted(SIZES)


def products(vectors, sizes):
    """Of [1; h] of every input; [1; 0] of one that is missing."""
    lengthened = [np.r_[1, vectors.get(name, np.zeros(size))] for name, size in sizes.items()]
    return np.array([math.prod(choice) for choice in itertools.product(*lengthened)])


def tensor(p, inputs):
    x = oracle.dense(p["products"], products(inputs, {name: SIZES[name] for name in ORDER}))
    return oracle.dense(p["mlp"]["layer_0"], oracle.ACTIVATIONS["gelu"](x))


def projected(p, inputs):
    vectors = {name: oracle.dense(p[f"project_{name}"], x) for name, x in inputs.items()}
    return oracle.dense(p["products"], products(vectors, dict.fromkeys(ORDER, 2)))


def test_equals_plain_numpy():
    check_twin(FUSIONS["tensor"], tensor)
    check_twin(FUSIONS["projected"], projected)


@pytest.mark.parametrize("width", [None, 2])
def test_what_is_left_of_a_missing_input_are_the_products_of_the_others(width):
    """The fusion of two inputs, whose kernel is the part of that of three where the third gives its one."""
    fusion = TensorFusion(embed_dim=5, width=width)
    params = params_of(fusion)
    kernel = params["params"]["products"]["kernel"]
    sizes = [(width or SIZES[name]) + 1 for name in ORDER]
    part = {"kernel": kernel.reshape(*sizes, 5)[0].reshape(-1, 5), "bias": params["params"]["products"]["bias"]}
    others = {"params": {**without(params["params"], "audio"), "products": part}}
    rows = ~THERE[:, 0]
    want = embedding(fusion, others, given(names=("image", "text")))
    np.testing.assert_allclose(embedding(fusion, params, given())[rows], want[rows], atol=1e-6)
