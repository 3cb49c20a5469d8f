import numpy as np

from mmjax.models.fusion.tensor import TensorFusion
from tests.models import oracle
from tests.models.fusion.embedded import FUSIONS, SIZES, check_twin, embedding, given, params_of

ORDER = sorted(SIZES)
LOW_RANK = FUSIONS["low_rank"]


def materialised(p):
    """The tensor of rank R, `[audio + 1, image + 1, text + 1, E]`."""
    factors = [p[f"factor_{name}"] for name in ORDER]
    outer = [np.einsum("ie,je,ke->ijke", *(factor[r] for factor in factors)) for r in range(len(factors[0]))]
    return np.einsum("r,rijke->ijke", p["weights"][0], outer)


def low_rank(p, inputs):
    whole = materialised(p)
    for name in ORDER:  # the first axis that is left is this input's
        whole = np.tensordot(np.r_[1, inputs.get(name, np.zeros(SIZES[name]))], whole, axes=1)
    return whole + p["bias"]


def test_equals_the_materialised_tensor():
    check_twin(LOW_RANK, low_rank)


def test_it_is_a_linear_layer_over_tensor_fusions_product_whose_kernel_has_that_rank():
    params = params_of(LOW_RANK)
    p = oracle.as64(params)["params"]
    kernel = np.float32(materialised(p).reshape(-1, 5))
    whole = {"params": {"products": {"kernel": kernel, "bias": np.float32(p["bias"])}}}
    want = embedding(TensorFusion(embed_dim=5), whole, given())
    np.testing.assert_allclose(embedding(LOW_RANK, params, given()), want, atol=1e-5)


def test_the_number_of_parameters():
    shapes = {name: x.shape for name, x in params_of(LOW_RANK)["params"].items()}
    factors = {f"factor_{name}": (3, size + 1, 5) for name, size in SIZES.items()}
    assert shapes == {**factors, "weights": (1, 3), "bias": (5,)}
