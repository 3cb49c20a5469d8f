import numpy as np
import pytest

from mmjax.models.fusion.gated import Gated
from tests.models.fusion.embedded import check_twin, embedding, given, params_of

PAIR = ("text", "image")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gate(p, inputs):
    return sigmoid(sum(x @ p[f"from_{name}"]["kernel"] for name, x in inputs.items()))


def value(p, name, x):
    return np.tanh(x @ p[f"value_{name}"]["kernel"])


def independent(p, inputs):
    return sum((gate(p[f"gate_{name}"], inputs) * value(p, name, x) for name, x in inputs.items()), np.zeros(5))


def complementary(p, inputs):
    if len(inputs) < 2:
        return sum((value(p, name, x) for name, x in inputs.items()), np.zeros(5))
    z = gate(p["gate"], inputs)
    return z * value(p, "image", inputs["image"]) + (1 - z) * value(p, "text", inputs["text"])


@pytest.mark.parametrize("gates", [None, "independent"])
def test_three_inputs_have_a_gate_each(gates):
    check_twin(Gated(embed_dim=5, gates=gates), independent)


@pytest.mark.parametrize(
    ("gates", "twin"), [(None, complementary), ("complementary", complementary), ("independent", independent)]
)
def test_two_inputs_share_a_gate_or_have_one_each(gates, twin):
    check_twin(Gated(embed_dim=5, gates=gates), twin, PAIR)


def test_the_shared_gate_multiplies_the_first_by_name():
    fusion = Gated(embed_dim=5)
    params = params_of(fusion, PAIR)["params"]
    wide = {name: {"kernel": np.zeros_like(params["gate"][name]["kernel"])} for name in params["gate"]}
    wide["from_image"]["kernel"] += 1e3
    tokens = {name: (np.abs(x), mask) for name, (x, mask) in given(np.ones((4, 3), bool), PAIR).items()}
    got = embedding(fusion, {"params": {**params, "gate": wide}}, tokens)
    want = [value(params, "image", x) for x in tokens["image"][0][:, 0]]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_there_are_no_biases():
    assert np.all(embedding(Gated(embed_dim=5), params_of(Gated(embed_dim=5)), given(np.zeros((2, 3), bool))) == 0)
