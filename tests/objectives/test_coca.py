"""CoCa: one pass of each tower serves both losses, and what each word and the CLS see."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.writing.writer import Writer
from mmjax.models import Blocks, DecoderBlocks, PooledViT, TextTransformer, UpperDecoder, WithoutFirst
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Contrastive, Pretrainer
from mmjax.objectives.written import decoder_to_write, params_to_write

VOCAB, LENGTH, WIDTH, B = 19, 6, 16, 4
SIZES: dict[str, Any] = {"width": WIDTH, "heads": 2, "remat": None}
LENGTHS = np.array([6, 4, 1, 3])


def tower(**fields: Any) -> TextTransformer:
    given: dict[str, Any] = {"vocab": VOCAB, "length": LENGTH, "causal": True, "cls_last": True, "norm_pooled": True}
    given |= {"blocks": Blocks(**SIZES, depth=2), "embed_dim": 8}
    return TextTransformer(**given | fields)


def decoder(**fields: Any) -> UpperDecoder:
    given: dict[str, Any] = {"context": {"image": None}}
    return UpperDecoder(vocab=VOCAB, length=LENGTH, blocks=DecoderBlocks(**SIZES, depth=2), **given | fields)


def coca(cascade: bool, **fields: Any) -> Pretrainer:
    """The paper's layout, or open_clip's."""
    image = PooledViT(patch=4, size=8, blocks=Blocks(**SIZES, depth=1), embed_dim=8, queries=3, pooler_heads=2,
                      cascade=cascade)  # fmt: skip
    upper = decoder() if cascade else decoder(cross="after", context={"image": WithoutFirst()})
    objectives: Any = {"contrastive": Contrastive(("image", "text")), "caption": Caption(upper, reads=("image",))}
    text = tower(cls_shifted=not cascade)
    given: Any = {"towers": {"image": image, "text": text}, "objectives": objectives, "weights": {"caption": 2.0}}
    return Pretrainer(**given | fields)


def batch(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < LENGTHS[:, None]
    return {
        "index": np.arange(B), "image": random.integers(0, 256, (B, 8, 8, 3), dtype=np.uint8),
        "image_valid": np.ones(B, bool), "text": np.where(mask, random.integers(1, VOCAB, (B, LENGTH)), 0),
        "text_mask": mask, "text_valid": np.ones(B, bool),
    }  # fmt: skip


def drawn(pretrainer: Any, given: Any) -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(lambda: pretrainer.init(jax.random.key(0), given)))

    def draw(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        spread = 1.0 if name in ("embedding", "position", "head", "cls") else 0.4
        return jnp.float32((name == "scale") + spread * random.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module", params=[True, False], ids=["cascade", "parallel"])
def case(request: Any) -> Any:
    pretrainer, given = coca(request.param), batch()
    return pretrainer, drawn(pretrainer, given), given, compiled(pretrainer)


def compiled(pretrainer: Pretrainer) -> Any:
    """A function of variables and a batch: the text tower's tokens, both embeddings, and the logits."""

    def both(module: Any, given: Any) -> Any:
        text = module.towers["text"].tokens(given["text"], given["text_mask"])
        image = module.towers["image"].tokens(given["image"])
        upper = module.objectives["caption"].decoder
        views = module.objectives["caption"].reads
        states = upper(text[0][:, :LENGTH], given["text_mask"], dict.fromkeys(views, image))
        pooled = module.towers["text"].pool(*text), module.towers["image"].pool(*image)
        return text[0], pooled, upper.logits(states)

    return jax.jit(lambda v, g: nn.apply(both, pretrainer)(v, g))


def test_words_see_neither_the_picture_nor_the_cls_nor_what_follows(case: Any) -> None:
    _, variables, given, of = case
    tokens, (text, image), logits = of(variables, given)
    assert tokens.shape == (B, LENGTH + 1, WIDTH)
    other = given | {"image": batch(1)["image"]}
    again, (same, moved), read = of(variables, other)
    np.testing.assert_array_equal(tokens, again)
    np.testing.assert_array_equal(text, same)
    assert np.abs(moved - image).max() > 0.01
    assert np.abs(read - logits).max() > 0.01
    params = variables["params"]
    cls = params["towers_text"] | {"cls": -params["towers_text"]["cls"]}
    again, (moved, _), read = of({"params": params | {"towers_text": cls}}, given)
    np.testing.assert_array_equal(tokens[:, :-1], again[:, :-1])
    np.testing.assert_array_equal(logits, read)
    assert np.abs(moved - text).max(axis=1).min() > 0.001
    later = given["text"].copy()
    later[0, 3] = later[0, 3] % (VOCAB - 1) + 1
    again, (moved, _), read = of(variables, given | {"text": later})
    np.testing.assert_array_equal(tokens[0, :3], again[0, :3])
    np.testing.assert_array_equal(logits[0, :3], read[0, :3])
    assert np.abs(read - logits)[0, 3:].max(axis=1).min() > 0.001
    assert np.abs(moved - text)[0].max() > 0.001


def test_the_text_is_the_same_without_its_padding(case: Any) -> None:
    """With the shifted mask the CLS sees the padding behind the last word, in a batch that has none too."""
    pretrainer, variables, given, of = case
    _, (text, _), _ = of(variables, given)
    own, one = {"params": variables["params"]["towers_text"]}, pretrainer.towers["text"]
    apart = jax.jit(one.apply)(own, given["text"][:, :4], given["text_mask"][:, :4])
    np.testing.assert_allclose(apart[1:], text[1:], atol=1e-6)


@pytest.mark.parametrize("shifted", [True, False])
def test_what_the_cls_sees_is_what_open_clip_builds(shifted: bool) -> None:
    """Of one layer: the places at which another vector moves the embedding are the keys of its mask."""
    one, given = tower(cls_shifted=shifted, blocks=Blocks(**SIZES, depth=1)), batch()
    params = drawn(one, given["text"])["params"]
    tables = np.array([params["position"]] * (LENGTH + 2))
    tables[np.arange(LENGTH + 1), np.arange(LENGTH + 1)] *= -1

    def pooled(table: Any) -> Any:
        return one.apply({"params": params | {"position": table}}, given["text"], given["text_mask"])

    found = np.asarray(jax.jit(jax.vmap(pooled))(tables))
    moved = np.abs(found[:-1] - found[-1]).max(axis=-1).T > 1e-5
    keys = np.pad(given["text_mask"], ((0, 0), (1, 0) if shifted else (0, 1)), constant_values=True)
    keys[:, -1] = True  # its own state is added in any case
    np.testing.assert_array_equal(moved, keys)


def test_each_view_is_encoded_once(case: Any) -> None:
    """The blocks' scans of one pass: one of each tower, and the upper half's."""
    pretrainer, variables, given, _ = case
    found = str(jax.make_jaxpr(lambda v: pretrainer.apply(v, given, train=False))(variables))
    assert found.count(" scan[") == 3


def test_without_the_caption_it_is_contrastive_training() -> None:
    pretrainer, given = coca(True), batch()
    variables = drawn(pretrainer, given)
    alone = pretrainer.clone(objectives={"contrastive": pretrainer.objectives["contrastive"]}, weights={})
    silent = pretrainer.clone(weights={"caption": 0.0})
    kept = {name: part for name, part in variables["params"].items() if name != "objectives_caption"}

    def gradients(module: Any, params: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda p: module.apply({"params": p}, given), has_aux=True))(params)

    ((loss, _), ours), ((wanted, _), theirs) = gradients(silent, variables["params"]), gradients(alone, kept)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(ours.pop("objectives_caption")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_the_losses_are_those_of_states_and_embeddings(case: Any) -> None:
    """Weighted 1 and 2, by numpy, of what the towers give; of every word but the first."""
    pretrainer, variables, given, of = case
    _, (text, image), logits = (jax.tree.map(lambda x: np.asarray(x, np.float64), one) for one in of(variables, given))
    total, metrics = jax.jit(pretrainer.apply)(variables, given)
    chosen = np.take_along_axis(logits[:, :-1], given["text"][:, 1:, None], axis=-1)[..., 0]
    each = np.log(np.exp(logits[:, :-1]).sum(axis=-1)) - chosen
    np.testing.assert_allclose(metrics["caption/loss"], each[given["text_mask"][:, 1:]].mean(), rtol=1e-5)
    scale = np.exp(variables["params"]["objectives_contrastive"]["log_scale"])
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (image, text)]
    pairs = scale * units[0] @ units[1].T
    ways = [np.log(np.exp(one).sum(axis=1)) - np.diag(one) for one in (pairs, pairs.T)]
    np.testing.assert_allclose(metrics["contrastive/loss"], np.mean(ways), rtol=1e-5)
    np.testing.assert_allclose(total, metrics["contrastive/loss"] + 2 * metrics["caption/loss"], rtol=1e-6)


def writing(pretrainer: Pretrainer, variables: Any, given: Any) -> Any:
    """The decoder of both halves, its parameters, and what it reads of pictures whose texts aren't there yet."""
    caption = pretrainer.objectives["caption"]
    params = params_to_write(caption, "caption", variables["params"])
    seen = {name: x for name, x in given.items() if "text" not in name}
    views = jax.jit(lambda v: pretrainer.apply(v, seen, "caption", method="views_to_write"))(variables)
    return *decoder_to_write(caption, "caption", pretrainer.towers, params), views


def test_writing_equals_the_full_pass_at_each_position(case: Any) -> None:
    """By one memory of both halves, of rows of different lengths."""
    pretrainer, variables, given, of = case
    _, _, logits = of(variables, given)
    whole, own, views = writing(pretrainer, variables, given)
    ids, mask = given["text"], given["text_mask"]

    def in_parts(own: Any) -> Any:
        states, cache = whole.apply({"params": own}, ids[:, :1], mask[:, :1], views, slots=LENGTH, method="prefill")
        found = [states]
        for begin, end in ((1, 2), (2, LENGTH)):
            part = slice(begin, end)
            states, cache = whole.apply({"params": own}, ids[:, part], cache, mask[:, part], method="extend")
            found.append(states)
        return whole.apply({"params": own}, jnp.concatenate(found, axis=1), method="logits")

    np.testing.assert_allclose(np.asarray(jax.jit(in_parts)(own))[mask], np.asarray(logits)[mask], rtol=0, atol=2e-5)


def test_the_likeliest_words_are_those_of_the_full_pass() -> None:
    pretrainer, given = coca(True), batch()
    variables = drawn(pretrainer, given)
    whole, own, views = writing(pretrainer, variables, given)
    writer = Writer(whole, own)
    with jax.set_mesh(writer.mesh):
        texts, _, task = writer.begin(writer.read([[5]] * B, views, most=LENGTH - 1))
        words = np.asarray(writer.advance(writer.params, texts, task, LENGTH - 1)[0].ids)[:, : LENGTH - 1]
    so_far = np.concatenate([np.full((B, 1), 5), words], axis=1)
    full = given | {"text": so_far, "text_mask": np.ones((B, LENGTH), bool)}
    _, _, logits = compiled(pretrainer)(variables, full)
    np.testing.assert_array_equal(words, logits[:, :-1].argmax(axis=-1))
    assert len(np.unique(words)) > 2


def wrong(message: str, text: Any = None, labels: tuple[str, ...] = (), **fields: Any) -> Any:
    return pytest.param(text or {}, labels, fields, message, id=message[:40])


@pytest.mark.parametrize(
    ("text", "labels", "fields", "message"),
    [
        wrong("towers.text, which has causal=False and must have True", {"causal": False}),
        wrong("which has norm_pooled=False and must have True", {"norm_pooled": False}),
        wrong("which has length=9 and must have 6", {"length": 9}),
        wrong("blocks.heads=2, and that of towers.text is 4", {"blocks": Blocks(width=WIDTH, depth=1, heads=4)}),
        wrong("blocks.norm_eps=1e-06, and that of towers.text is 0.1",
              {"blocks": Blocks(**SIZES, depth=1, norm_eps=0.1)}),
        wrong("set parallel=0, and give texts that are neither packed", labels=("segments",)),
        wrong("set parallel=0, and give texts that are neither packed", parallel=0.5, mask_id=3),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(text: Any, labels: Any, fields: Any, message: str) -> None:
    caption = Caption(decoder(), reads=("image",), **fields)
    inputs = {"text": Incoming((LENGTH,), "int32", labels)}
    with pytest.raises(UserError, match=message):
        caption.check_parts("objectives.caption", {"text": tower(**{"cls_last": False} | text)}, inputs)
    caption = Caption(decoder(), reads=("image",))
    caption.check_parts("objectives.caption", {"text": tower()}, {"text": Incoming((LENGTH,), "int32")})
