"""big_vision's files: the same embeddings, loss and gradients as the published architecture, written here in Flax."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.errors import UserError
from mmjax.experiment.graph import build, complete
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules
from mmjax.interop.big_vision import layout as big_vision_layout
from tests.flat import put
from tests.interop import tables

WIDTH, DEPTH, HEADS, MLP = 24, 2, 3, 40
TOLERANCE = 1e-5
IDS = np.array([[9, 5, 1, 1, 1], [7, 4, 3, 6, 1], [17, 11, 22, 3, 1]], np.int32)


class MlpBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Dense(MLP)(x))
        return nn.Dense(WIDTH)(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        normed = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS)(normed, normed)
        return x + MlpBlock()(nn.LayerNorm()(x)), None


class Encoder(nn.Module):
    scanned: bool = False

    @nn.compact
    def __call__(self, x):
        if self.scanned:
            stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=DEPTH)
            x, _ = stack(name="encoderblock")(x, None)
        else:
            for i in range(DEPTH):
                x, _ = Block(name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class MAPHead(nn.Module):
    @nn.compact
    def __call__(self, x):
        probe = self.param("probe", nn.initializers.normal(), (1, 1, WIDTH))
        x = nn.MultiHeadDotProductAttention(num_heads=HEADS)(jnp.tile(probe, (len(x), 1, 1)), x)
        return (x + MlpBlock()(nn.LayerNorm()(x)))[:, 0]


class Image(nn.Module):
    pool: str = "map"
    classes: int | None = None
    scanned: bool = False

    @nn.compact
    def __call__(self, pixels):
        x = nn.Conv(WIDTH, (4, 4), strides=4, padding="VALID", name="embedding")(pixels)
        x = x.reshape(len(x), -1, WIDTH)
        x = x + self.param("pos_embedding", nn.initializers.normal(), (1, x.shape[1], WIDTH))
        if self.pool == "tok":
            cls = self.param("cls", nn.initializers.normal(), (1, 1, WIDTH))
            x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], axis=1)
        x = Encoder(self.scanned, name="Transformer")(x)
        x = MAPHead()(x) if self.pool == "map" else x[:, 0] if self.pool == "tok" else x.mean(1)
        return nn.Dense(self.classes, name="head")(x) if self.classes else x


class Text(nn.Module):
    classes: int
    scanned: bool = False

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(99, WIDTH)(ids)
        x = x + self.param("pos_embedding", nn.initializers.normal(), (1, ids.shape[1], WIDTH))
        return nn.Dense(self.classes, name="head")(Encoder(self.scanned)(x)[:, -1])


class TwoTowers(nn.Module):
    sigmoid: bool = True
    scanned: bool = False
    classes: int | None = None

    @nn.compact
    def __call__(self, pixels, ids):
        image = Image(classes=self.classes, scanned=self.scanned, name="img")(pixels)
        text = Text(self.classes or WIDTH, self.scanned, name="txt")(ids)
        t = self.param("t", nn.initializers.zeros, (1,))
        logits = cosines(image, text) * jnp.exp(t)
        if self.sigmoid:
            logits = logits + self.param("b", nn.initializers.zeros, (1,))
            loss = -nn.log_sigmoid(logits * (2 * jnp.eye(len(ids)) - 1)).sum() / len(ids)
        else:
            both = [jnp.diag(nn.log_softmax(logits, axis)).mean() for axis in (0, 1)]
            loss = -sum(both) / 2
        return loss, {"image": image, "text": text}


def cosines(a, b):
    a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def drawn(module, *inputs):
    """Random arrays of the module's shapes, by their names."""
    shapes = tables.flat(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(0)
    return {
        name: (name.endswith("scale") + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
        for name, leaf in shapes.items()
    }


def saved(arrays, path):
    np.savez(path, **arrays)
    return path


def close(ours, theirs, scale=None):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * (scale or np.abs(theirs).max()))


@pytest.mark.parametrize("fields", [{}, {"scanned": True, "sigmoid": False, "classes": 10}], ids=["siglip", "clip"])
def test_two_towers_there_and_back(fields, pictures, tmp_path):
    module, pixels = TwoTowers(**fields), pictures / np.float32(127.5) - 1
    arrays = drawn(module, pixels, IDS)
    bundle = big_vision_layout.read(saved(arrays, tmp_path / "theirs.npz"))
    ours = build(bundle.config).pretrainer()
    rows = np.ones(3, bool)
    mask = IDS != 1  # what fills up is text for them
    batch = {"image": pictures, "text": IDS, "text_mask": mask, "image_valid": rows, "text_valid": rows}

    def loss(params):
        (value, _), seen = ours.apply(
            {"params": params},
            batch,
            train=False,
            mutable=["intermediates"],
            capture_intermediates=lambda _, method: method == "pool",
        )
        return value, {name: seen["intermediates"][f"towers_{name}"]["pool"][0] for name in ("image", "text")}

    def there(params):
        return module.apply(params, pixels, IDS)

    differentiate = jax.value_and_grad if fields == {} else ungraded  # in one of the cases: it takes time to compile

    def both(params, theirs):
        return differentiate(loss, has_aux=True)(params), differentiate(there, has_aux=True)(theirs)

    with jax.default_matmul_precision("highest"):
        got, want = jax.jit(both)(bundle.variables["params"], unflatten_dict(arrays, sep="/"))
    for modality in ("image", "text"):
        close(got[0][1][modality], want[0][1][modality])
    close(got[0][0], want[0][0])
    if fields == {}:
        theirs = big_vision_layout.renamed({name: np.asarray(leaf) for name, leaf in tables.flat(want[1]).items()})
        gradient = parameter_rules.take(big_vision_layout.rules(built_of(bundle), theirs), theirs, "it")["params"]
        tables.same_gradients(tables.flat(got[1]), tables.flat(gradient), TOLERANCE)

    written = dict(np.load(big_vision_layout.write(bundle, tmp_path / "out" / "ours.npz")))
    for name, array in arrays.items():
        if "/encoderblock/" in name:  # there stacked, here a block each
            unstacked = [written.pop(name.replace("block/", f"block_{i}/")) for i in range(DEPTH)]
            np.testing.assert_array_equal(np.stack(unstacked), array)
        else:
            np.testing.assert_array_equal(written.pop(name), array)
    assert not written


def ungraded(function, has_aux):
    """In place of `jax.value_and_grad`."""
    assert has_aux
    return lambda params: (function(params), None)


def built_of(bundle):
    return tables.built(bundle.config.towers, bundle.config.objectives)


def embedded(bundle, pictures):
    (tower,) = (build(config) for config in bundle.config.towers.values())
    with jax.default_matmul_precision("highest"):
        return jax.jit(tower.apply)({"params": bundle.variables["params"]["towers_image"]}, pictures)


@pytest.mark.parametrize("fields", [{"pool": "gap"}, {"pool": "tok", "classes": 7}], ids=str)
def test_an_image_tower_alone(fields, pictures, tmp_path):
    module, pixels = Image(**fields), pictures / np.float32(127.5) - 1
    arrays = drawn(module, pixels)
    bundle = big_vision_layout.read(saved(arrays, tmp_path / "theirs.npz"))
    want = jax.jit(module.apply)(unflatten_dict(arrays, sep="/"), pixels)
    close(embedded(bundle, pictures), want)
    written = dict(np.load(big_vision_layout.write(bundle, tmp_path / "ours.npz")))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)

    if fields["pool"] == "tok":  # the names and the position of the CLS that older files have
        old = {}
        for name, array in arrays.items():
            name = (
                name.removeprefix("params/").replace("Attention_0", "Attention_1").replace("MlpBlock_0", "MlpBlock_3")
            )
            old[name.replace("LayerNorm_1", "LayerNorm_2")] = array
        moved = 0.5 * old["cls"]
        old["cls"] = old["cls"] - moved
        table = np.concatenate([moved, old.pop("pos_embedding")], axis=1)
        old["Transformer/posembed_input/pos_embedding"] = table
        older = big_vision_layout.read(saved(old, tmp_path / "old.npz"))
        close(embedded(older, pictures), want)
        again = big_vision_layout.read(big_vision_layout.write(older, tmp_path / "new.npz"))
        np.testing.assert_allclose(
            again.variables["params"]["towers_image"]["cls"], arrays["params/cls"][0, 0], rtol=1e-6
        )


def test_bfloat16_is_read_and_an_optimiser_is_not(pictures, tmp_path):
    arrays = drawn(Image(), pictures / np.float32(127.5) - 1)
    short = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    bundle = big_vision_layout.read(saved({**short, "opt/0/count": np.zeros(1)}, tmp_path / "theirs.npz"))
    stem = bundle.variables["params"]["towers_image"]["stem"]["bias"]
    np.testing.assert_array_equal(stem, short["params/embedding/bias"].astype(np.float32))
    assert stem.dtype == np.float32


def test_a_tokenizer_beside_the_file_is_taken(pictures, tmp_path):
    arrays = drawn(TwoTowers(), pictures / np.float32(127.5) - 1, IDS)
    path = saved(arrays, tmp_path / "theirs.npz")
    assert big_vision_layout.read(path).tokenizers == {}
    model = SentencePiece(40).train(["a red disc", "a blue bar", "the green cross"])
    (tmp_path / "c4_en.model").write_bytes(model)
    bundle = big_vision_layout.read(path)
    assert bundle.tokenizers["text"].model == model
    again = bundles.read(bundles.save(bundle, tmp_path / "ours"))
    assert again.config == complete(bundle.config)
    assert again.tokenizers == bundle.tokenizers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params/img/pre_logits/kernel": np.zeros(1)}, "img/pre_logits, a layer before the head, is in no tower"),
        ({"params/img/pos_embedding": np.zeros((1, 6, WIDTH))}, "img/pos_embedding has 6 positions, .* no square grid"),
        ({"params/img/extra": np.zeros(1)}, "1 arrays that have no place in this model: img/extra"),
        (
            {"params/txt/Embed_0/embedding": None},
            "txt is no transformer of .* it lacks txt/Embed_0/embedding",
        ),
        ({"params/img/embedding/bias": None}, "lacks 1 arrays that this model needs: img/embedding/bias"),
        ({"params/t": np.array([{}], object)}, "it.npz holds pickled objects of Python, .* numpy.savez"),
    ],
)
def test_what_cannot_be_read_is_named(change, message, pictures, tmp_path):
    arrays: dict[str, Any] = drawn(TwoTowers(), pictures / np.float32(127.5) - 1, IDS) | change
    path = saved({name: array for name, array in arrays.items() if array is not None}, tmp_path / "it.npz")
    with pytest.raises(UserError, match=message):
        big_vision_layout.read(path)


def test_what_is_no_file_of_arrays_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        big_vision_layout.read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(
        UserError, match=r"text\.npz can't be read as arrays: it is damaged, or no \.npz \(File is not a zip file\)$"
    ):
        big_vision_layout.read(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("tower", "fields", "message"),
    [
        ("image", {"mean": (0.4, 0.4, 0.4)}, r"pixels in \[-1, 1\]: mean and std are 0\.5"),
        (
            "image",
            {"activation": "gelu"},
            r"quite the same:\n  towers.image.blocks.activation: 'gelu_tanh' there, 'gelu' here\n--inexact writes",
        ),
        ("image", {"pre_norm": True}, "pre_norm=True"),
        ("image", {"out_bias": False}, r"big_vision's towers have no blocks.out_bias=False, which towers.image has"),
        (
            "image",
            {"activation": "quick_gelu"},
            r"the nearest has\n  towers.image.blocks.activation: 'gelu_tanh' there",
        ),
        ("text", {"causal": True}, "towers.text.causal: False there, True here"),
        ("text", {"projection_bias": False}, "heads have a bias: towers.text has projection_bias=False"),
    ],
)
def test_what_big_vision_does_not_have_is_refused(tower, fields, message, pictures, tmp_path):
    arrays = drawn(TwoTowers(), pictures / np.float32(127.5) - 1, IDS)
    bundle = big_vision_layout.read(saved(arrays, tmp_path / "theirs.npz"))
    put(bundle.config.towers[tower], **fields)
    with pytest.raises(UserError, match=message):
        big_vision_layout.write(bundle, tmp_path / "ours.npz")
    with pytest.raises(UserError, match="is there already"):
        big_vision_layout.write(bundle, tmp_path / "theirs.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.npz"]


SIZES = {"B": (768, 12, 12, 3_072), "L": (1_024, 24, 16, 4_096), "So400m": (1_152, 27, 16, 4_304)}


@pytest.mark.parametrize(
    ("size", "patch", "side", "length", "parameters"),
    [("B", 16, 14, 64, 203_155_970), ("L", 16, 16, 64, None), ("So400m", 14, 27, 64, None)],
)
def test_published_sizes(size, patch, side, length, parameters):
    """Names and shapes alone; the two that aren't stated are what the towers' formula gives."""
    width, depth, heads, mlp = SIZES[size]
    shapes = published(width, depth, heads, mlp, patch, side, length)
    arrays = big_vision_layout.renamed(tables.hollow(shapes))
    described = big_vision_layout.model_parts(arrays, "it")
    built = tables.built(*described[:2])
    found, used = tables.taken(big_vision_layout.rules(built, arrays), arrays)
    assert used == set(arrays)
    made = bundles.variables_of(build(bundles.stand_in(*described[:2], big_vision_layout.chains(built))))
    assert found == {path: leaf.shape for path, leaf in tables.flat(made).items()}
    block = 4 * width**2 + 2 * width * mlp + 9 * width + mlp
    image = (3 * patch**2 + 1 + side**2) * width + depth * block + 2 * width + block - width
    text = (32_000 + length) * width + depth * block + 2 * width + width**2 + width
    total = sum(math.prod(shape) for shape in found.values())
    assert total == (parameters or image + text + 2)


def published(width, depth, heads, mlp, patch, side, length):
    """The names and shapes of a released SigLIP."""
    square, inner = (width, heads, width // heads), (heads, width // heads)
    shapes: dict[str, tuple[int, ...]] = {"t": (1,), "b": (1,)}

    def add(name, kernel, bias, first="kernel"):
        shapes.update({f"{name}/{first}": kernel, f"{name}/bias": bias})

    def block(name, norms):
        for part in ("query", "key", "value"):
            add(f"{name}/MultiHeadDotProductAttention_0/{part}", square, inner)
        add(f"{name}/MultiHeadDotProductAttention_0/out", (*inner, width), (width,))
        for i in range(norms):
            add(f"{name}/LayerNorm_{i}", (width,), (width,), "scale")
        add(f"{name}/MlpBlock_0/Dense_0", (width, mlp), (mlp,))
        add(f"{name}/MlpBlock_0/Dense_1", (mlp, width), (width,))

    for tower, encoder in (("img", "Transformer"), ("txt", "Encoder_0")):
        for i in range(depth):
            block(f"{tower}/{encoder}/encoderblock_{i}", 2)
        add(f"{tower}/{encoder}/encoder_norm", (width,), (width,), "scale")
    add("img/embedding", (patch, patch, 3, width), (width,))
    block("img/MAPHead_0", 1)
    add("txt/head", (width, width), (width,))
    shapes |= {"img/MAPHead_0/probe": (1, 1, width), "img/pos_embedding": (1, side**2, width)}
    shapes |= {"txt/pos_embedding": (1, length, width), "txt/Embed_0/embedding": (32_000, width)}
    return {f"params/{name}": shape for name, shape in shapes.items()}


def test_open_clip_reads_the_same_numbers_from_a_file(tmp_path):
    """By its own loader of big_vision's files, into its model for SigLIP, which is read as ours then."""
    torch = pytest.importorskip("torch")
    open_clip, timm = pytest.importorskip("open_clip"), pytest.importorskip("timm")
    from mmjax.interop.open_clip import layout as open_clip_layout

    arrays = drawn(TwoTowers(), np.zeros((1, 8, 8, 3), np.float32), IDS)
    path = saved(arrays, tmp_path / "theirs.npz")
    bundle = big_vision_layout.read(path)
    text = {"context_length": 5, "vocab_size": 99, "width": WIDTH, "heads": HEADS, "layers": DEPTH}
    text |= {"mlp_ratio": MLP / WIDTH + 1e-6, "pool_type": "last", "no_causal_mask": True, "proj_bias": True}
    sizes = {"patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": MLP / WIDTH + 1e-6}
    trunk = timm.models.VisionTransformer(img_size=8, class_token=False, global_pool="map", num_classes=0, **sizes)
    model = torch.nn.Module()
    model.visual, model.text = torch.nn.Module(), open_clip.transformer.TextTransformer(output_dim=WIDTH, **text)
    model.visual.trunk = trunk
    model.logit_scale, model.logit_bias = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))
    open_clip.convert.load_big_vision_weights(model, str(path))
    state = open_clip_layout.renamed({name: array.numpy() for name, array in model.state_dict().items()})
    found = tables.flat(parameter_rules.take(open_clip_layout.rules(built_of(bundle)), state, "it"))
    for name, array in tables.flat(bundle.variables).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
