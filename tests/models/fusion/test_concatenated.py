import jax
import numpy as np

from mmjax.models.fusion.concatenated import Concatenated
from tests.models import oracle
from tests.models.fusion.embedded import FUSIONS, SIZES, THERE, check_twin, embedding, given, params_of


def mlp(p, inputs):
    x = sum((x @ p["joined"][f"from_{name}"]["kernel"] for name, x in inputs.items()), p["joined"]["bias"])
    for place in range(len(p.get("mlp", {}))):
        x = oracle.dense(p["mlp"][f"layer_{place}"], oracle.ACTIVATIONS["gelu"](x))
    return x


def test_equals_plain_numpy():
    for name in ("concatenated", "linear"):
        check_twin(FUSIONS[name], mlp)


def test_the_first_layer_is_a_dense_over_the_concatenation():
    """With zeros for what is missing."""
    fusion = Concatenated(embed_dim=5)
    params = params_of(fusion)
    tokens, p = given(lacking=0.0), oracle.as64(params)["params"]["joined"]
    whole = np.concatenate([tokens[name][0][:, 0] for name in sorted(SIZES)], axis=1)
    kernel = np.concatenate([p[f"from_{name}"]["kernel"] for name in sorted(SIZES)])
    np.testing.assert_allclose(embedding(fusion, params, tokens), whole @ kernel + p["bias"], atol=1e-5)


def test_each_layer_takes_in_the_axis_that_the_one_before_gives():
    held = jax.eval_shape(FUSIONS["concatenated"].init, jax.random.key(0), given())["params"]
    kernels = [held["joined"]["from_text"]["kernel"], *(held["mlp"][f"layer_{place}"]["kernel"] for place in (0, 1))]
    assert [kernel.names for kernel in kernels] == [("embed", "mlp"), ("mlp", "embed"), ("embed", "mlp")]


def test_it_starts_as_such_a_dense_does():
    """Xavier's range is that of the whole matrix, not of each input's part."""
    wide = Concatenated(embed_dim=40)
    tokens = {name: (np.zeros((1, 1, size)), THERE[:1, :1]) for name, size in {"a": 50, "b": 10}.items()}
    joined = jax.jit(wide.init)(jax.random.key(0), tokens)["params"]["joined"]
    bound = (6 / (60 + 40)) ** 0.5
    for name in ("a", "b"):
        kernel = np.abs(joined[f"from_{name}"]["kernel"].value)
        assert 0.97 * bound < kernel.max() <= bound
