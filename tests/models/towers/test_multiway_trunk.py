"""The multiway trunk: a token goes by its own way's parameters, alone as well as beside tokens of other ways."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, MultiwayTrunk, TextTransformer, ThroughTrunk, Trunk, ViT
from mmjax.models.layers.attention_maps import WEIGHTS
from mmjax.models.layers.relative_positions import distance_count, distances
from mmjax.models.layers.transformer import Transformer
from tests.models.oracle import ACTIVATIONS, as64, layer_norm, params_of, softmax

D, HEADS = 16, 2
BLOCKS = Blocks(width=D, depth=3, heads=HEADS, mlp_dim=24, layer_scale=0.5, remat=None)
VLMO = MultiwayTrunk(blocks=BLOCKS, ways=("image", "text"), joint=1, key_bias=False)
BEIT3 = MultiwayTrunk(
    blocks=Blocks(width=D, depth=2, heads=HEADS, norm_eps=1e-5),
    ways=("image", "text"), apart="all", sub_norm=True, kinds=False,
)  # fmt: skip
CAV_MAE = MultiwayTrunk(
    blocks=Blocks(width=D, depth=2, heads=HEADS, norm_eps=1e-5), ways=("image", "text"), apart="norms", joint=1
)
PLACED = VLMO.clone(relative={"image": (2, 2), "text": (6,)})
TRUNKS: dict[str, Any] = {"vlmo": VLMO, "beit3": BEIT3, "cav_mae": CAV_MAE, "placed": PLACED}
KERNEL = Blocks(width=D, depth=3, heads=2, attention="pallas")
POST = Blocks(width=D, depth=3, heads=2, norm="post")
COUNTS = {"image": 4, "text": 5}


def sequence(ways: Any, seed: int = 0) -> tuple[Any, Any, Any]:
    """Tokens of two examples, the last text token of the second padded."""
    ways = tuple((name, COUNTS[name]) for name in ways)
    count = sum(length for _, length in ways)
    x = np.random.default_rng(seed).normal(size=(2, count, D)).astype(np.float32)
    real = np.ones((2, count), bool)
    if ways[-1][0] == "text":
        real[1, -1] = False
    return jnp.asarray(x), jnp.asarray(real), ways


def params(name: str) -> Any:
    x, real, ways = sequence(("image", "text"))
    return params_of(TRUNKS[name], x, real, False, None, ways)


def run(trunk: Any, variables: Any, x: Any, real: Any, ways: Any, **more: Any) -> np.ndarray:
    return np.asarray(jax.jit(lambda v, x, real: trunk.apply(v, x, real, ways=ways, **more)[0])(variables, x, real))


def distance(one: tuple[str, int], other: tuple[str, int]) -> int:
    """From one token to another: 9 steps on the grid of 2 x 2 and 3 of a CLS, 11 along a text, and the two ways."""
    if one[0] != other[0]:
        return 23 if one[0] == "image" else 24
    if one[0] == "text":
        return 12 + other[1] - one[1] + 5
    down, right = (other[1] // 2 - one[1] // 2, other[1] % 2 - one[1] % 2)
    return (down + 1) * 3 + right + 1


def twin(trunk: Any, p: Any, x: np.ndarray, ways: list[str]) -> np.ndarray:
    """One example without padding, token by token: the parameters of each are looked up by its own way."""
    blocks, apart, norms = trunk.blocks, trunk.apart == "all", trunk.apart == "norms"
    eps, met = blocks.norm_eps, len(set(ways)) > 1
    size = D // HEADS

    def projected(tree: Any, way: str, token: np.ndarray) -> Any:
        held = tree[f"qkv_{way}" if apart else "qkv"]
        bias = held["bias"]
        if not trunk.key_bias:
            bias = np.stack([bias[:, 0], np.zeros_like(bias[:, 0]), bias[:, 1]], axis=1)
        return np.einsum("d,dhpk->phk", token, held["kernel"]) + np.moveaxis(bias, 1, 0)

    places = [(way, sum(before == way for before in ways[:i])) for i, way in enumerate(ways)]
    for layer in range(blocks.depth):
        first_joint = blocks.depth - trunk.joint
        group, index = ("layers", layer) if layer < first_joint else ("joint", layer - first_joint)
        own = jax.tree.map(lambda leaf, index=index: leaf[index], p[group])
        by = ["all" if group == "joint" and met else way for way in ways]
        suffix, read_by = ([f"_{way}" if own else "" for way in by] for own in (apart, apart or norms))
        a = own["attention"]
        heads = [projected(a, way, layer_norm(own[f"norm_attention{end}"], token, eps))
                 for way, end, token in zip(by, read_by, x, strict=True)]  # fmt: skip
        scales = [own[s]["scale"] if s in own else 1.0 for s in ("scale_attention", "scale_mlp")]
        moved = []
        for (query, _, _), end, token, place in zip(heads, suffix, x, places, strict=True):
            seen = []
            for h in range(HEADS):
                logits = np.array([query[h] @ key[h] for _, key, _ in heads]) / np.sqrt(size)
                if trunk.relative:
                    logits += np.array([a["relative"][distance(place, other), h] for other in places])
                weights = softmax(logits)
                seen.append(sum(w * value[h] for w, (_, _, value) in zip(weights, heads, strict=True)))
            seen = np.concatenate(seen)
            if trunk.sub_norm:
                seen = layer_norm(a[f"norm{end}"], seen, eps)
            out = a[f"out{end}"]
            moved.append(token + scales[0] * (seen @ out["kernel"].reshape(-1, D) + out["bias"]))
        x = np.stack(moved)
        through = []
        for way, token in zip(by, x, strict=True):
            held, read = own["mlp" if norms else f"mlp_{way}"], layer_norm(own[f"norm_mlp_{way}"], token, eps)
            inner = ACTIVATIONS["gelu"](read @ held["in"]["kernel"] + held["in"]["bias"])
            inner = layer_norm(held["norm"], inner, eps) if trunk.sub_norm else inner
            through.append(token + scales[1] * (inner @ held["out"]["kernel"] + held["out"]["bias"]))
        x = np.stack(through)
    last = ["all" if norms and trunk.joint and met else way for way in ways]
    return np.stack([layer_norm(p[f"norm_{way}" if apart or norms else "norm"], token, eps)
                     for way, token in zip(last, x, strict=True)])  # fmt: skip


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize("inputs", [("image",), ("text",), ("image", "text"), ("text", "image")], ids="+".join)
def test_every_token_by_hand(name: str, inputs: tuple[str, ...]) -> None:
    trunk, variables = TRUNKS[name], params(name)
    x, real, ways = sequence(inputs)
    found = run(trunk, variables, x, real, ways)
    every = [way for way, count in ways for _ in range(count)]
    for row in range(2):
        there = np.asarray(real[row])
        expected = twin(trunk, as64(variables["params"]), np.asarray(x[row], np.float64)[there],
                        [way for way, is_real in zip(every, there, strict=True) if is_real])  # fmt: skip
        np.testing.assert_allclose(found[row][there], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", TRUNKS)
def test_one_way_alone_reads_its_own_parameters_and_no_other(name: str) -> None:
    """What is the image's and what is the text's shows in the tree; of a text alone only its own gets a gradient."""
    trunk, variables = TRUNKS[name], params(name)
    x, real, ways = sequence(("text",))
    loss = jax.jit(jax.grad(lambda v: jnp.sum(trunk.apply(v, x, real, ways=ways)[0] ** 2)))
    seen = loss(variables)["params"]
    others = shared = own = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(seen):
        text = jax.tree_util.keystr(path)
        moves = float(jnp.abs(leaf).max()) > 0
        if "_image" in text or "_all" in text:
            assert not moves, text
            others += 1
        elif "_text" in text:
            own += 1
            assert moves, text
        else:
            shared += 1
            assert moves, text
    assert others > 0
    assert own > 0
    assert (shared == 0) == (trunk.apart == "all")


def test_all_ways_are_initialised_whichever_goes_first() -> None:
    for trunk in TRUNKS.values():
        shapes = []
        for inputs in (("image",), ("text",), ("image", "text")):
            x, real, ways = sequence(inputs)
            tree = nn.unbox(jax.eval_shape(lambda x=x, real=real, ways=ways, t=trunk: t.init(
                jax.random.key(0), x, real, ways=ways)))  # fmt: skip
            shapes.append(tree)
        assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1]) == jax.tree.structure(shapes[2])
        assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1]) == jax.tree.leaves(shapes[2])


@pytest.mark.parametrize("name", TRUNKS)
def test_padding_and_a_missing_input_change_nothing(name: str) -> None:
    trunk, variables = TRUNKS[name], params(name)
    x, real, ways = sequence(("image", "text"))
    real = real.at[0, : COUNTS["image"]].set(False)  # the first example has no picture
    found = run(trunk, variables, x, real, ways)
    other = run(trunk, variables, jnp.where(real[..., None], x, 50 + x), real, ways)
    np.testing.assert_allclose(found[np.asarray(real)], other[np.asarray(real)], rtol=0, atol=1e-5)
    if not trunk.joint:  # then a text without its picture is that text alone
        alone = run(trunk, variables, x[:, COUNTS["image"] :], real[:, COUNTS["image"] :], ways[1:])
        np.testing.assert_allclose(found[0, COUNTS["image"] :], alone[0], rtol=0, atol=1e-5)


def test_dropout_follows_each_example_s_key() -> None:
    trunk: Any = MultiwayTrunk(blocks=Blocks(width=D, depth=2, heads=2, dropout=0.3), ways=("image", "text"))
    x, real, ways = sequence(("image", "text"))
    variables = params_of(trunk, x, real, False, None, ways)
    keys = jax.random.split(jax.random.key(1), 2)
    both = run(trunk, variables, x, real, ways, train=True, keys=keys)
    one = run(trunk, variables, x[1:], real[1:], ways, train=True, keys=keys[1:])
    np.testing.assert_allclose(one[0], both[1], rtol=0, atol=1e-5)
    assert np.abs(both - run(trunk, variables, x, real, ways)).max() > 0.01


def test_a_cls_has_distances_of_its_own_and_every_place_counts() -> None:
    """Of a grid of 2 x 3 after a CLS, and a sequence: every number is used, and the same one for the same step."""
    found = distances({"image": (2, 3), "text": (4,)}, (("image", 7), ("text", 4)))
    steps: dict[int, set[Any]] = {}
    names = ["cls", *((r, c) for r in range(2) for c in range(3)), *range(4)]
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            if isinstance(one, tuple) and isinstance(other, tuple):
                step: Any = (other[0] - one[0], other[1] - one[1])
            elif isinstance(one, int) and isinstance(other, int):
                step = other - one
            else:
                kinds = ["image" if i < 7 else "text", "image" if j < 7 else "text"]
                step = (*kinds, *([one == "cls", other == "cls"] if kinds == ["image", "image"] else []))
            steps.setdefault(int(found[i, j]), set()).add(step)
    assert sorted(steps) == list(range(distance_count({"image": (2, 3), "text": (4,)})))
    assert all(len(one) == 1 for one in steps.values())
    assert len(set().union(*steps.values())) == len(steps)
    np.testing.assert_array_equal(found[1:7, 1:7], distances({"image": (2, 3)}, (("image", 6),)))


def test_a_pass_whose_weights_are_kept_has_the_relative_positions_too() -> None:
    """They are computed by other code, for attention maps."""
    x, real, ways = sequence(("image", "text"))
    variables = params("placed")
    (found, _), kept = PLACED.apply(variables, x, real, ways=ways, mutable=[WEIGHTS])
    assert jax.tree.leaves(kept[WEIGHTS])
    np.testing.assert_allclose(found, run(PLACED, variables, x, real, ways), rtol=0, atol=1e-5)


def test_a_picture_without_positions_of_its_own_is_read_by_the_trunk_s() -> None:
    """Its tower has no table, and patches in another order give another vector."""
    tower: Any = towers(PLACED)["image"].clone(positions="none")
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    variables = params_of(tower, x)
    assert "position" not in variables["params"]
    assert np.abs(tower.apply(variables, x) - tower.apply(variables, x[:, ::-1])).max() > 1e-3
    bare: Any = towers(VLMO)["image"].clone(positions="none")
    turned = np.concatenate([x[:, 8:], x[:, :8]], axis=1)  # the same patches
    variables = params_of(bare, x)
    np.testing.assert_allclose(bare.apply(variables, x), bare.apply(variables, turned), rtol=0, atol=1e-5)


def towers(trunk: Any) -> dict[str, Any]:
    return {
        "image": ViT(trunk=trunk, way="image", patch=8, size=16, cls=True, pooling="cls", position_offset=2),
        "text": TextTransformer(
            trunk=trunk, way="text", vocab=20, length=6, pooling="cls", position_offset=2, pre_norm=True
        ),
    }


@pytest.mark.parametrize("name", TRUNKS)
def test_a_tower_is_its_front_through_its_way(name: str) -> None:
    """The CLS, positions from the offset on, the norm of words and the kind are in the front."""
    trunk = TRUNKS[name]
    for way, x in (
        ("image", np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)),
        ("text", np.array([[1, 7, 9, 3, 0, 0], [4, 5, 6, 7, 8, 9]], np.int32)),
    ):
        tower = towers(trunk)[way]
        mask = None if way == "image" else jnp.asarray(x > 0)
        variables = params_of(tower, x, mask)
        tokens, real = tower.apply(variables, x, mask, method="tokens")
        front, here = tower.apply(variables, x, mask, method="front")
        np.testing.assert_array_equal(real, here)
        assert front.shape[1] == (5 if way == "image" else 6)
        p = variables["params"]
        again = run(trunk, {"params": p["trunk"]}, front, here, ((way, front.shape[1]),))
        np.testing.assert_allclose(again, tokens, rtol=0, atol=1e-5)
        table = p["position"]
        assert len(table) == 2 + front.shape[1]
        kind = p["kind"] if trunk.kinds else 0.0
        if way == "image":
            np.testing.assert_allclose(front[0, 0], p["cls"] + table[2] + kind, rtol=0, atol=1e-6)
        else:
            word = p["token"]["embedding"][x[0, 0]] + table[2]
            word = layer_norm(p["norm_pre"], word, trunk.blocks.norm_eps)
            np.testing.assert_allclose(front[0, 0], word + kind, rtol=0, atol=1e-5)
        embedding = tower.apply(variables, x, mask)
        np.testing.assert_allclose(embedding, tokens[:, 0], rtol=0, atol=1e-6)


def early(trunk: Any, **fields: Any) -> Any:
    """A picture's tower with blocks before the trunk."""
    blocks = Blocks(**{"width": D, "depth": 1, "heads": HEADS, **fields})
    return towers(trunk)["image"].clone(early=blocks)


def test_blocks_before_the_trunk_stand_between_a_tower_s_tokens_and_it() -> None:
    """Text and picture, each against the tower without them and a transformer that has its parameters; a patch that is
    left out is not attended to there either."""
    blocks = Blocks(width=D, depth=2, heads=HEADS)
    inputs: dict[str, Any] = {
        "image": np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8),
        "text": np.array([[1, 7, 9, 3, 0, 0], [4, 5, 6, 7, 8, 9]], np.int32),
    }
    for way, x in inputs.items():
        bare: Any = towers(CAV_MAE)[way]
        tower: Any = bare.clone(early=blocks)
        mask: Any = None if way == "image" else jnp.asarray(x > 0)
        variables = params_of(tower, x, mask)
        assert set(variables["params"]) == set(params_of(bare, x, mask)["params"]) | {"transformer"}
        front, real = bare.apply(variables, x, mask, method="front")
        own = {"params": variables["params"]["transformer"]}
        expected: Any = Transformer(blocks, final_norm=False).apply(own, front, real)
        found, there = tower.apply(variables, x, mask, method="front")
        np.testing.assert_array_equal(there, real)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        tokens = tower.apply(variables, x, mask, method="tokens")[0]
        through = run(CAV_MAE, {"params": variables["params"]["trunk"]}, found, there, ((way, found.shape[1]),))
        np.testing.assert_allclose(tokens, through, rtol=0, atol=1e-5)
        if way == "text":
            other = tower.apply(variables, jnp.where(mask, x, 3), mask, method="front")[0]
            np.testing.assert_allclose(other[np.asarray(real)], found[np.asarray(real)], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run_with(VLMO, (("audio", 9),)), "no way 'audio', but the ways are image, text"),
        (lambda: run_with(VLMO, (("image", 4),)), "given 9 tokens and the ways"),
        (lambda: run_with(VLMO.clone(joint=4), (("image", 9),)), "joint=4 must be between 0 and blocks.depth=3"),
        (lambda: run_with(VLMO.clone(apart="norm"), (("image", 9),)), "apart='norm'.*did you mean norms"),
        (lambda: started(early(VLMO, width=8)), "early.width=8 and early.dropout=0.0: .* trunk.blocks.width=16"),
        (lambda: started(early(VLMO, dropout=0.1)), "early.dropout=0.1: blocks before a trunk .* have no dropout"),
        (lambda: started(towers(None)["image"].clone(way=None, blocks=BLOCKS, early=BLOCKS)), "there is none: set tru"),
        (lambda: run_with(VLMO.clone(ways=("all", "image")), (("image", 9),)), "none of them 'all'"),
        (lambda: run_with(VLMO.clone(blocks=POST), (("image", 9),)), "pre-LN"),
        (lambda: run_with(PLACED, (("image", 9),)), r"'image' are of \(2, 2\), 4 or, with a CLS, 5 tokens, and"),
        (lambda: run_with(PLACED, (("text", 9),)), r"'text' are of \(6,\), up to 6 tokens, and it has 9"),
        (lambda: run_with(VLMO.clone(relative={"text": (9,)}), (("text", 9),)), r"no extent of the ways \['image'\]"),
        (lambda: run_with(VLMO.clone(relative={"image": (3, 3), "text": (9, 1, 1)}), (("text", 9),)), "must be"),
        (lambda: run_with(PLACED.clone(blocks=KERNEL), (("text", 5), ("image", 4))), "takes no relative positions"),
        (lambda: started(towers(VLMO)["image"].clone(way=None)), "way 'None', but the ways are image, text"),
        (lambda: started(towers(Trunk(blocks=BLOCKS))["image"].clone(cls=False)), "a Trunk has none: leave it out"),
        (lambda: started(towers(None)["image"].clone(blocks=BLOCKS)), "there is no trunk"),
        (lambda: fused(ThroughTrunk(trunk=VLMO, first="txt")), "embedding of 'txt', .* did you mean text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def run_with(trunk: Any, ways: Any) -> None:
    jax.eval_shape(lambda: trunk.init(jax.random.key(0), jnp.zeros((1, 9, D)), jnp.ones((1, 9), bool), ways=ways))


def started(tower: Any) -> None:
    jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3), jnp.uint8)))


def fused(fusion: Any) -> None:
    tokens = {name: (jnp.zeros((1, 3, D)), jnp.ones((1, 3), bool)) for name in COUNTS}
    jax.eval_shape(lambda: fusion.init(jax.random.key(0), tokens))
