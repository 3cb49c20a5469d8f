"""Tables of parameters: each layout against the product that it stands for, there and back."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.interop import parameter_rules
from mmjax.interop.parameter_rules import Rule, give, take
from tests.runtime.files.test_archives import in_little_memory

WIDTH, HEADS, LAYERS = 12, 3, 2


def randoms(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def linear_shapes(name, layers=0, out=WIDTH):
    return {
        f"{name.replace('{layer}', str(layer))}.{part}": shape
        for layer in range(max(1, layers))
        for part, shape in (("weight", (out, WIDTH)), ("bias", (out,)))
    }


@pytest.mark.parametrize(
    ("rules", "shapes"),
    [
        (parameter_rules.linear("p/a", "x.{layer}.a", LAYERS), linear_shapes("x.{layer}.a", LAYERS, 20)),
        (parameter_rules.linear("p/a", "a"), linear_shapes("a", out=20)),
        (parameter_rules.norm("p/a", "a"), {"a.weight": (WIDTH,), "a.bias": (WIDTH,)}),
        (
            parameter_rules.heads_in("p/a", ("q", "k", "v"), HEADS),
            linear_shapes("q") | linear_shapes("k") | linear_shapes("v"),
        ),
        (
            parameter_rules.heads_in_joined("p/a", "x.{layer}.qkv", HEADS, LAYERS),
            linear_shapes("x.{layer}.qkv", LAYERS, 36),
        ),
        (parameter_rules.heads_out("p/a", "x.{layer}.o", HEADS, LAYERS), linear_shapes("x.{layer}.o", LAYERS)),
        (parameter_rules.heads_in_joined("p/a", "kv", HEADS, parts=2), linear_shapes("kv", out=24)),
        (
            [parameter_rules.convolution("p/a", "x.{layer}.c", 2, first=1)],
            {f"x.{i}.c.weight": (5, 4, 3, 3) for i in (1, 2)},
        ),
        (
            parameter_rules.batch_norm("a", "bn"),
            {f"bn.{part}": (7,) for part in ("weight", "bias", "running_mean", "running_var")},
        ),
    ],
)
def test_there_and_back_gives_the_same_bits(rules, shapes):
    theirs = randoms(shapes)
    ours = take(rules, theirs, "it")
    back = give(rules, ours, "it")
    assert back.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(back[name], array)


def test_a_linear_layer_computes_the_same():
    theirs = randoms(linear_shapes("a", out=20))
    ours = take(parameter_rules.linear("p", "a"), theirs, "it")["p"]
    x = np.ones(WIDTH, np.float32)
    np.testing.assert_allclose(x @ ours["kernel"] + ours["bias"], theirs["a.weight"] @ x + theirs["a.bias"], rtol=1e-5)


@pytest.mark.parametrize("joined", [False, True])
def test_query_key_and_value_are_their_heads(joined):
    theirs = randoms(linear_shapes("q") | linear_shapes("k") | linear_shapes("v"))
    rules = parameter_rules.heads_in("p", ("q", "k", "v"), HEADS)
    given = theirs
    if joined:
        rules = parameter_rules.heads_in_joined("p", "in", HEADS, dot="_")
        given = {
            f"in_{part}": np.concatenate([theirs[f"{name}.{part}"] for name in "qkv"]) for part in ("weight", "bias")
        }
    ours = take(rules, given, "it")["p"]
    x = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    for i, name in enumerate("qkv"):
        heads = (theirs[f"{name}.weight"] @ x + theirs[f"{name}.bias"]).reshape(HEADS, -1)
        np.testing.assert_allclose(
            np.einsum("d,dhk->hk", x, ours["kernel"][:, :, i]) + ours["bias"][:, i], heads, rtol=1e-4, atol=1e-5
        )


def test_heads_are_joined_in_order():
    theirs = randoms(linear_shapes("o"))
    ours = take(parameter_rules.heads_out("p", "o", HEADS), theirs, "it")["p"]
    x = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    joined = np.einsum("hk,hkd->d", x.reshape(HEADS, -1), ours["kernel"]) + ours["bias"]
    np.testing.assert_allclose(joined, theirs["o.weight"] @ x + theirs["o.bias"], rtol=1e-4, atol=1e-5)


def test_layers_stand_in_their_order():
    theirs = {f"block.{i}.scale": np.full(2, i, np.float32) for i in range(11)}
    ours = take([Rule("p/scale", ("block.{layer}.scale",), layers=11)], theirs, "it")
    np.testing.assert_array_equal(ours["p"]["scale"][:, 0], np.arange(11))


def test_layers_may_start_later():
    theirs = {f"block.{i}.scale": np.full(2, i, np.float32) for i in range(4)}
    rest = [Rule("p/first", ("block.0.scale",)), Rule("p/rest", ("block.{layer}.scale",), layers=3, first=1)]
    np.testing.assert_array_equal(take(rest, theirs, "it")["p"]["rest"][:, 0], [1, 2, 3])


def test_a_convolution_computes_the_same():
    weight = randoms({"c.weight": (5, 4, 3, 3)})["c.weight"]
    kernel = take([parameter_rules.convolution("p", "c")], {"c.weight": weight}, "it")["p"]["kernel"]
    patch = np.random.default_rng(1).standard_normal((3, 3, 4)).astype(np.float32)  # rows, columns, channels
    want = (weight * patch.transpose(2, 0, 1)).sum((1, 2, 3))
    np.testing.assert_allclose(np.einsum("hwi,hwio->o", patch, kernel), want, rtol=1e-4)


def test_what_is_missing_or_left_over_is_named():
    rules = [Rule("params/a", ("weight",)), Rule("params/b", ("bias",))]
    full = {"weight": np.zeros(1), "bias": np.zeros(1)}
    with pytest.raises(UserError, match=r"^it lacks 1 arrays that this model needs: bias; did you mean biass"):
        take(rules, {"weight": np.zeros(1), "biass": np.zeros(1)}, "it")
    with pytest.raises(UserError, match=r"^it has 1 arrays that have no place in this model: gamma$"):
        take(rules, full | {"gamma": np.zeros(1)}, "it")
    assert take(rules, full | {"ids": np.zeros(1)}, "it", ignored=lambda name: name == "ids").keys() == {"params"}
    with pytest.raises(UserError, match=r"^it lacks params/b"):
        give(rules, {"params": {"a": np.zeros(1)}}, "it")
    with pytest.raises(UserError, match=r"^it: 1 parameters have no place there: params/c$"):
        give(rules, {"params": {"a": np.zeros(1), "b": np.zeros(1), "c": np.zeros(1)}}, "it")


def test_more_layers_than_there_are_arrays_are_not_counted_to_their_end():
    """A config.json of a line may say a thousand million."""
    with (
        in_little_memory(),
        pytest.raises(UserError, match=r"it lacks \d+ arrays that .*: x\.1\.a\.weight"),
    ):
        take(parameter_rules.linear("p/a", "x.{layer}.a", 10**9), randoms(linear_shapes("x.0.a")), "it")


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(
        UserError, match=r"it: the sizes of q\.weight \[7, 12\] aren't those of the config \(cannot resh"
    ):
        take(
            parameter_rules.heads_in("p/a", ("q",), HEADS), randoms({"q.weight": (7, WIDTH), "q.bias": (WIDTH,)}), "it"
        )
