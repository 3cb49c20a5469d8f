"""Next-word prediction: each text's sums equal loops over its words, and neither cut nor mesh changes anything."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, LinearProjector, TextDecoder
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Pretrainer
from mmjax.objectives.contract import usable
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import SIZES, VOCAB, ToyTower, assert_same, toy_batch

B, L, MASK_ID = 16, SIZES["text"], 3
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
READS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "language": ({}, ()),
    "cross": ({"cross": "within", "context": {"image": None, "audio": None}}, ("image", "audio")),
    "prefix": ({"prefix": {"image": LinearProjector()}, "positions": "rotary"}, ("image",)),
}


def caption(name: str = "cross", dropout: float = 0.2, **fields: Any) -> Caption:
    more, reads = READS[name]
    blocks = DecoderBlocks(width=8, depth=2, heads=2, kv_heads=1, dropout=dropout)
    return Caption(TextDecoder(vocab=VOCAB, length=24, blocks=blocks, **more), reads=reads, **fields)


def build(objective: Caption, microbatches: int = 1) -> Any:
    towers = {name: ToyTower(name) for name in objective.reads}
    return Pretrainer(towers, {"words": objective}, microbatches=microbatches)


def batch(name: str = "cross") -> Any:
    kept = {"index", "text", "text_mask", "text_valid"}
    given = toy_batch(B)
    given["text_loss"] = np.random.default_rng(3).random((B, L)) < 0.7
    given["text_prefix"] = np.random.default_rng(4).integers(0, 3, B).astype(np.int32)
    reads = READS[name][1]
    return {
        k: v for k, v in given.items() if k in kept or k.split("_")[0] in reads or k in ("text_loss", "text_prefix")
    }


def drawn(pretrainer: Any, given: Any) -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), given))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, given: pretrainer.apply(variables, given, rngs=KEYS), has_aux=True)
    )


def log_softmax(x: Any) -> Any:
    x = np.asarray(x, np.float64)
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


@pytest.mark.parametrize(("name", "smoothing"), [("language", 0.1), ("cross", 0.0), ("prefix", 0.1)])
def test_the_loss_is_that_of_each_text_s_words_one_by_one(name: str, smoothing: float) -> None:
    """Each text alone, without padding, by the decoder itself (which its own test holds to loops)."""
    objective, given = caption(name, label_smoothing=smoothing), batch(name)
    variables = drawn(build(objective), given)
    loss, metrics = build(objective).apply(variables, given, train=False)
    params, total, hits, count = variables["params"], 0.0, 0, 0
    decoder, own = objective.decoder, {"params": params["objectives_words"]["decoder"]}

    @jax.jit
    def logits_of(ids: Any, seen: Any, together: Any) -> Any:
        return decoder.apply(own, decoder.apply(own, ids, None, seen, together), method="logits")

    for row in np.flatnonzero(usable(objective, given)):
        ids = given["text"][row][given["text_mask"][row]]
        seen = {}
        for input in objective.reads:
            mask = given[f"{input}_mask"][row : row + 1] if f"{input}_mask" in given else None
            tower = {"params": params[f"towers_{input}"]}
            tokens, real = ToyTower(input).apply(tower, given[input][row : row + 1], mask, method="tokens")
            seen[input] = tokens, real & given[f"{input}_valid"][row]
        if len(ids) < 2:
            continue
        for place, logits in enumerate(logits_of(ids[None, :-1], seen, given["text_prefix"][row : row + 1])[0]):
            if given["text_loss"][row, place + 1] and place + 1 >= given["text_prefix"][row]:
                said = log_softmax(logits)
                total -= (1 - smoothing) * said[ids[place + 1]] + smoothing * said.mean()
                hits, count = hits + (said.argmax() == ids[place + 1]), count + 1
    assert count > B
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["words/accuracy"], hits / count, rtol=1e-6)


@pytest.fixture(scope="module", params=["cross", "prefix"])
def whole(request: Any) -> Any:
    objective, given = caption(request.param, parallel=0.4, mask_id=MASK_ID, mean="texts"), batch(request.param)
    variables = drawn(build(objective), given)
    return objective, given, variables, gradient(build(objective))(variables, given)


@pytest.mark.parametrize("microbatches", [2, 4])
def test_the_cut_changes_nothing(microbatches: int, whole: Any) -> None:
    objective, given, variables, expected = whole
    assert_same(gradient(build(objective, microbatches))(variables, given), expected, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], whole: Any) -> None:
    objective, given, variables, expected = whole
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(given, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    held = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(objective))(held, rows), expected, 1e-5)


def test_a_missing_picture_changes_no_other_example_and_its_content_nothing() -> None:
    objective, given = caption(alone=True), batch()
    variables = drawn(build(objective), given)
    junk = given | {"image": np.where(given["image_valid"][:, None, None], given["image"], np.nan).astype(np.float32)}
    junk["text"] = np.where(given["text_valid"][:, None], given["text"], VOCAB + 7).astype(np.int32)
    assert_same(gradient(build(objective))(variables, junk), gradient(build(objective))(variables, given), 1e-7)


def test_a_text_counts_that_has_something_of_what_is_read_or_any_where_it_may_stand_alone() -> None:
    given = batch() | {"image_valid": np.arange(B) > 4, "audio_valid": np.arange(B) > 2}
    text = given["text_valid"]
    np.testing.assert_array_equal(usable(caption(), given), text & (np.arange(B) > 2))
    np.testing.assert_array_equal(usable(caption(alone=True), given), text)
    np.testing.assert_array_equal(usable(caption("language"), given), text)


def test_a_mean_of_texts_weighs_each_text_alike() -> None:
    given = batch("language")
    one, other = (caption("language", mean=mean) for mean in ("tokens", "texts"))
    variables = drawn(build(one), given)
    each, apply = [], jax.jit(lambda given: build(one).apply(variables, given, train=False)[0])
    for row in range(B):
        alone = {k: v[row : row + 1] for k, v in given.items()}
        wanted = (
            given["text_loss"] & given["text_mask"] & (np.arange(L) >= np.maximum(given["text_prefix"], 1)[:, None])
        )
        counted = given["text_valid"][row] and wanted[row].any()
        if counted:
            each.append(apply(alone))
    loss, _ = build(other).apply(variables, given, train=False)
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    assert abs(loss - build(one).apply(variables, given, train=False)[0]) > 1e-3


def test_packed_texts_have_the_loss_of_each_alone() -> None:
    objective = caption("language", dropout=0.0)
    alone = {k: v for k, v in toy_batch(4).items() if k.startswith("text") or k == "index"} | {
        "text_valid": np.ones(4, bool)
    }
    variables = drawn(build(objective), alone)
    lengths = alone["text_mask"].sum(axis=1)
    packed = {
        "text": np.concatenate([alone["text"][i, : lengths[i]] for i in range(4)])[None],
        "text_segments": np.repeat(np.arange(4), lengths)[None].astype(np.int32),
        "text_positions": np.concatenate([np.arange(n) for n in lengths])[None].astype(np.int32),
        "text_valid": np.ones(1, bool),
        "index": np.zeros(1, np.uint32),
    }
    decoder = objective.decoder.clone(length=40)
    objective = objective.clone(decoder=decoder)
    variables["params"]["objectives_words"]["decoder"]["position"] = jnp.float32(
        np.random.default_rng(8).normal(size=(40, 8))
    )
    assert_same(gradient(build(objective))(variables, packed), gradient(build(objective))(variables, alone), 1e-5)


def test_at_once_a_word_is_told_by_its_place_and_the_picture_alone() -> None:
    """CapPa: with rate 1 no logit depends on the text, though every word is a target; in evaluation none is at once."""
    given = batch() | {"text_loss": np.ones((B, L), bool), "text_prefix": np.zeros(B, np.int32)}
    given["text_valid"] = given["image_valid"] = given["audio_valid"] = np.ones(B, bool)
    given["text_mask"] = np.ones((B, L), bool)
    objective = caption(parallel=1.0, mask_id=MASK_ID, dropout=0.0)
    variables = drawn(build(objective), given)

    def loss(given: Any, train: bool) -> Any:
        return build(objective).apply(variables, given, train=train, rngs=KEYS)[0]

    # A text's first word is no target, so all that it can change is what is read.
    head = given | {"text": np.concatenate([given["text"][:, :1] + 1, given["text"][:, 1:]], axis=1)}
    assert loss(head, True) == loss(given, True)
    assert abs(loss(head, False) - loss(given, False)) > 1e-4
    dark = given | {"image": np.zeros_like(given["image"])}
    assert abs(loss(dark, True) - loss(given, True)) > 1e-4


def test_the_rate_of_texts_at_once_is_that_of_the_field() -> None:
    given = {k: np.tile(v, (64,) + (1,) * (v.ndim - 1)) for k, v in batch("language").items()}
    given |= {"index": np.arange(64 * B, dtype=np.uint32), "text_prefix": np.zeros(64 * B, np.int32)}
    seen: list[Any] = []

    class Spying(nn.Module):
        length = 24
        vocab = VOCAB
        context = prefix = inserted = ()

        def __call__(self, words: Any, *args: Any, together: Any, **kwargs: Any) -> Any:
            seen.append((words, together))
            return jnp.zeros((*words.shape, 4))

        def logits(self, states: Any) -> Any:
            return jnp.zeros((*states.shape[:-1], VOCAB))

    spied = Caption(Spying(), parallel=0.75, mask_id=MASK_ID)
    loss, _ = Pretrainer({}, {"words": spied}).apply({}, given, rngs=KEYS)
    np.testing.assert_allclose(loss, np.log(VOCAB), rtol=1e-6)
    words, together = seen[0]
    at_once: Any = np.asarray(words == MASK_ID).all(axis=1)
    np.testing.assert_array_equal(together, np.where(at_once, L - 1, 0))
    np.testing.assert_array_equal(words[~at_once], given["text"][~at_once, :-1] * given["text_valid"][~at_once, None])
    assert abs(at_once.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(at_once))


def test_the_first_loss_of_a_head_of_zeros_is_that_of_even_words() -> None:
    more = {"cross": "within", "context": {"image": None}, "tied": False, "zero_head": True}
    blocks = DecoderBlocks(width=8, depth=2, heads=2, bias=False)
    objective = Caption(TextDecoder(vocab=VOCAB, length=L, blocks=blocks, **more), reads=("image",))  # pyright: ignore
    pretrainer = build(objective)
    variables = nn.unbox(jax.jit(pretrainer.init)(jax.random.key(0), batch()))
    np.testing.assert_allclose(pretrainer.apply(variables, batch(), rngs=KEYS)[0], np.log(VOCAB), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "inputs", "message"),
    [
        ({"mean": "rows"}, {}, "o.mean='rows' is not one of tokens, texts"),
        ({"label_smoothing": 1.0}, {}, "o.label_smoothing=1.0 must be from 0 to below 1"),
        ({"parallel": 0.5}, {}, "o.parallel=0.5 with mask_id=None"),
        ({"parallel": 1.5, "mask_id": 4}, {}, "o.parallel=1.5 with mask_id=4"),
        ({"parallel": 0.5, "mask_id": VOCAB}, {}, f"o.mask_id={VOCAB} is no id below o.decoder.vocab={VOCAB}"),
        ({"text": "txt"}, {}, "o predicts the words of 'txt', but the chains of data.transforms are text"),
        ({}, {"text": Incoming((26,), "int32", (), None, 9)}, "texts of 26 tokens, of which o reads all but the last"),
        ({}, {"text": Incoming((8,), "int32", (), None, VOCAB + 1)}, f"up to {VOCAB + 1} pieces"),
        ({}, {"text": Incoming((8,), "float32", (), None, 9)}, r"o predicts token ids int32\[L\]"),
        ({"reads": ("image",)}, {}, r"o.reads=\('image',\) and o.decoder reads nothing"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Any, inputs: Any, message: str) -> None:
    given = {"text": Incoming((25,), "int32", (), None, VOCAB)} | inputs
    objective = caption("language").clone(**fields)
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", {}, given)
    caption("language").check_parts("o", {}, {"text": Incoming((25,), "int32", (), None, VOCAB)})


def test_a_pretrainer_without_towers_embeds_nothing_and_says_so() -> None:
    pretrainer = build(caption("language"))
    with pytest.raises(UserError, match=r"nothing to embed: .* the towers read nothing"):
        pretrainer.apply({}, batch("language"), method="embed")
