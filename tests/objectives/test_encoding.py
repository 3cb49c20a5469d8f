"""Views by a teacher, by another's tower, and through a fusion: each beside what its modules give by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.dropout import drop
from mmjax.objectives.contract import Fused, View, named_key, present, valid
from mmjax.objectives.encoded import Encoded, EncodedCorrupted, EncodedKept
from mmjax.objectives.encoding import Encoding, Keys
from mmjax.objectives.masking import Corrupt, Keep
from mmjax.objectives.pretrainer import Pretrainer
from tests.objectives.rounds import RATE, STUDENT, Distilling, Fusing, ToyFusion
from tests.objectives.toys import VOCAB, WIDTH, ToyTower, toy_batch

B = 4
MASK, DROPOUT = jax.random.key(5), jax.random.key(6)
BATCH = toy_batch(B)


def drawn(pretrainer: Pretrainer, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    shapes: Any = jax.eval_shape(pretrainer.init, jax.random.key(0), BATCH)["params"]
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def first_key(name: str, rngs: Any) -> Any:
    """The key that the pretrainer draws of an rng."""
    return Pretrainer({}, {}).apply({}, method=lambda self: self.make_rng(name), rngs=rngs)


def test_a_teacher_is_the_tower_with_the_average_s_parameters() -> None:
    """In value and gradient; the average itself has none. The mask of both is the same, and nothing drops out there."""
    pretrainer = Pretrainer({"image": ToyTower("image")}, {"distil": Distilling()})
    params, ema = drawn(pretrainer), drawn(pretrainer, 1)
    key = first_key("mask", {"mask": MASK})

    def loss_of(params: Any, ema: Any) -> Any:
        return pretrainer.apply({"params": params, "ema": ema}, BATCH, rngs={"mask": MASK})[0]

    def by_hand(params: Any, ema: Any) -> Any:
        x = present(BATCH)["image"]  # pyright: ignore
        assert isinstance(STUDENT.masking, Keep)
        keep = STUDENT.masking.draw(STUDENT.key(key), jnp.arange(B), jnp.ones(x.shape[:2], bool))
        tower = ToyTower("image")
        student, teacher = (
            tower.apply({"params": by["towers_image"]}, *tower.apply(
                {"params": by["towers_image"]}, x, None, keep, method="tokens"), method="pool")  # pyright: ignore
            for by in (params, ema)
        )  # fmt: skip
        own = named_key(key, "per_example distil")
        keys = jax.vmap(lambda row: jax.random.fold_in(own, row))(BATCH["index"])
        distance = jnp.square(drop(student, RATE, keys, 2) - jax.lax.stop_gradient(teacher)).sum(axis=1)  # pyright: ignore
        return jnp.where(BATCH["image_valid"], distance, 0).sum() / BATCH["image_valid"].sum()

    gradient = jax.jit(jax.value_and_grad(loss_of, (0, 1)))
    found, (of_params, of_ema) = gradient(params, ema)
    expected, of_params_by_hand = jax.jit(jax.value_and_grad(by_hand))(params, ema)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), of_params, of_params_by_hand)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(of_ema))
    assert abs(found - gradient(params, params)[0]) > 1e-3
    with pytest.raises(UserError, match=r"'image' is a teacher's, and there is no moving average.*ema=0\.999"):
        jax.eval_shape(lambda: pretrainer.apply({"params": params}, BATCH, rngs={"mask": MASK}))


def test_a_fusion_reads_the_towers_tokens_without_those_that_an_example_lacks() -> None:
    pretrainer = Pretrainer(
        {name: ToyTower(name) for name in ("image", "text")}, {"fuse": Fusing()}, fusions={"both": ToyFusion()}
    )
    params, rngs = drawn(pretrainer), {"mask": MASK, "dropout": DROPOUT}
    own = Fused("both", (View("image"), View("text"))).dropout_key(first_key("dropout", rngs))

    def by_hand(params: Any) -> Any:
        tokens: dict[str, Any] = {}
        for name in ("image", "text"):
            tower, rows = {"params": params[f"towers_{name}"]}, present(BATCH)  # pyright: ignore
            x, mask = ToyTower(name).apply(tower, rows[name], rows.get(f"{name}_mask"), method="tokens")  # pyright: ignore
            tokens[name] = x, mask & valid(BATCH, name)[:, None]  # pyright: ignore
        keys = jax.vmap(lambda row: jax.random.fold_in(own, row))(BATCH["index"])
        found: Any = ToyFusion().apply({"params": params["fusions_both"]}, tokens, train=True, keys=keys)
        moved, seen = found
        image, text = (ToyTower.pooled(*moved[name]) for name in ("image", "text"))
        read = params["objectives_fuse"]["read"]
        errors = jnp.square(image @ read["kernel"] + read["bias"] - text + seen).sum(axis=1)
        both = BATCH["image_valid"] & BATCH["text_valid"]
        return jnp.where(both, errors, 0).sum() / both.sum()

    found = jax.jit(jax.value_and_grad(lambda params: pretrainer.apply({"params": params}, BATCH, rngs=rngs)[0]))(
        params
    )
    expected = jax.jit(jax.value_and_grad(by_hand))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


class Forgets(ToyFusion):
    def __call__(self, tokens: Any, train: bool = False, keys: Any = None) -> Any:
        return {"image": tokens["image"]}, jnp.zeros((B, WIDTH))


@pytest.mark.parametrize(
    ("fusion", "view", "message"),
    [
        (
            Forgets(),
            Fused("both", (View("image"), View("text"))),
            r"fusions.both was given .*'text': \(4, 8\).*, and gave",
        ),
        (ToyFusion(), Fused("bth", (View("image"), View("text"))), "fusion 'bth'.* are both; did you mean both"),
        (ToyFusion(), Fused("both", (View("image"), View("image", Keep(0.5)))), "'fuse' fuses image, image: an input"),
        (ToyFusion(), View("image"), "no objective reads the fusion both: leave it out"),
        (ToyFusion(), View("picture", tower="imag"), "'fuse' reads 'imag', which has no tower.*did you mean image"),
        (ToyFusion(), View("picture", tower="image"), "'fuse' needs 'picture', which the batch lacks"),
        (ToyFusion(), View("image", Corrupt(vocab=VOCAB)), "'fuse' corrupts 'image'; only tokens of text can be"),
    ],
)
def test_errors_name_what_is_wrong(fusion: Any, view: Any, message: str) -> None:
    class Asks(Fusing):
        def views(self) -> Any:
            return (view, View("image"), View("text")) if message[:2] != "no" else (view, View("text"))

        def fusions(self) -> Any:
            return () if message.startswith("no") else ("both",)

    towers = {name: ToyTower(name) for name in ("image", "text")}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(Pretrainer(towers, {"fuse": Asks()}, fusions={"both": fusion}).init, jax.random.key(0), BATCH)


def test_objectives_are_handed_what_a_view_s_masking_makes() -> None:
    tower: Any = ToyTower("text")
    views: Any = View("text"), View("text", Keep(0.5)), View("text", Corrupt(vocab=VOCAB))

    @jax.jit
    def encoded(batch: Any) -> Any:
        variables = tower.init(jax.random.key(0), batch["text"])
        encoding = Encoding({"text": tower.bind(variables)}, {}, Keys(MASK, None), frozenset())
        return tuple(encoding.views(views, batch, None).values())  # pyright: ignore

    whole, some, hidden = jax.tree.map(np.asarray, encoded(BATCH))
    assert [type(one) for one in (whole, some, hidden)] == [Encoded, EncodedKept, EncodedCorrupted]
    assert (whole.tokens.shape, some.tokens.shape) == ((B, 8, WIDTH), (B, 4, WIDTH))
    np.testing.assert_array_equal(hidden.ids, BATCH["text"])
    assert (some.keep.shape, some.grid, hidden.table) == ((B, 4), (8,), None)
    assert 1 <= hidden.chosen.sum(axis=1).min() <= hidden.chosen.sum(axis=1).max() < 8
