"""Masked codes of patches: the loss by hand, alone and fused with masked words; what counts; any cut and any mesh."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import Blocks, Incoming, Merged, TextTransformer, ViT
from mmjax.objectives import Corrupt, CorruptPatches, Keep, KeepOutsideBlocks, MaskedCodes, MaskedText, Pretrainer, View
from mmjax.objectives.contract import usable
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import assert_same

B, GRID, PATCH, CODES, VOCAB, LENGTH, WIDTH = 8, 4, 4, 16, 32, 8, 16
N = GRID**2
BLOCKS = Blocks(width=WIDTH, depth=1, heads=2)
TOWERS: dict[str, Any] = {
    "image": ViT(patch=PATCH, size=16, blocks=BLOCKS, cls=True, pooling="cls", norm_pooled=True, mask_token=True),
    "text": TextTransformer(vocab=VOCAB, length=LENGTH, blocks=BLOCKS, pooling="cls", norm_pooled=True),
}
FUSIONS: dict[str, Any] = {"both": Merged(blocks=BLOCKS, project=True, kinds=False)}
BLOCKY = KeepOutsideBlocks(10 / 16, smallest=2)
WORDS = Corrupt(vocab=VOCAB, rate=0.4)
HIDDEN = View("image", CorruptPatches(BLOCKY)), View("text", WORDS)
DRAWN: dict[str, Any] = {"vocab": VOCAB, "rate": 0.4}
ALONE: dict[str, Any] = {
    "mim": MaskedCodes(CODES, keep=BLOCKY, only={"text": False}),
    "mlm": MaskedText(**DRAWN, only={"image": False}),
}
PAIRED: dict[str, Any] = {
    "mmm_image": MaskedCodes(CODES, keep=BLOCKY, fusion="both", beside=HIDDEN, only={"text": True}),
    "mmm_text": MaskedText(**DRAWN, fusion="both", beside=HIDDEN, only={"image": True}),
}
KEYS = {"mask": jax.random.key(5)}


def batch(image: Any = None, text: Any = None) -> dict[str, Any]:
    """Pictures, codes and texts; by default of two examples each an input lacks."""
    random = np.random.default_rng(0)
    given: dict[str, Any] = {
        "index": np.arange(B, dtype=np.uint32),
        "image": random.integers(0, 256, (B, 16, 16, 3), dtype=np.uint8),
        "codes": random.integers(0, CODES, (B, N)).astype(np.int32),
        "text": random.integers(5, VOCAB, (B, LENGTH)).astype(np.int32),
        "text_mask": np.arange(LENGTH) < random.integers(3, LENGTH + 1, (B, 1)),
        "image_valid": np.arange(B) > 1 if image is None else np.full(B, image),
        "text_valid": np.arange(B) < B - 2 if text is None else np.full(B, text),
    }
    return given | {"codes_valid": given["image_valid"]}


def build(microbatches: int = 1, objectives: Any = None) -> Pretrainer:
    objectives = {**ALONE, **PAIRED} if objectives is None else objectives
    fusions = FUSIONS if any(objective.fusion for objective in objectives.values()) else {}
    towers = {name: TOWERS[name] for name in TOWERS if any(name in repr(o.views()) for o in objectives.values())}
    return Pretrainer(towers, objectives, microbatches=microbatches, fusions=fusions)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def variables() -> Any:
    init = jax.jit(build().init)
    made = nn.unbox(init({"params": jax.random.key(0), "mask": jax.random.key(1)}, batch()))
    random = np.random.default_rng(1)  # biases and norms too, whose initial values hide mistakes
    return jax.tree.map(lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype(np.float32), made)


@pytest.fixture(scope="module")
def run() -> Any:
    return gradient(build())


@pytest.fixture(scope="module")
def whole(run: Any, variables: Any) -> Any:
    return run(variables, batch())


@pytest.mark.parametrize("microbatches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    assert_same(gradient(build(microbatches))(variables, batch()), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build())(replicated, rows), whole, 1e-5)


def normalised(x: np.ndarray, held: Any) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * held["scale"] + held["bias"]


def surprise(x: np.ndarray, held: Any, last: str, target: int) -> tuple[float, bool]:
    """The head by numpy, on one token: the cross-entropy, and whether the likeliest is right."""
    x = x @ held["dense"]["kernel"] + held["dense"]["bias"]
    x = np.asarray(jax.nn.gelu(x, approximate=False), np.float64)
    logits = normalised(x, held["norm"]) @ held[last]["kernel"] + held[last]["bias"]
    return float(np.log(np.exp(logits - logits[target]).sum())), int(np.argmax(logits)) == target


def test_the_losses_by_hand(variables: Any, whole: Any) -> None:
    """Example by example and token by token: mask tokens put in by hand, towers, the fusion from tokens before the last
    norm, heads of the towers' tokens after it."""
    params: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    given = batch()
    key: Any = build().apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    hidden = HIDDEN[0].masking.draw(HIDDEN[0].key(key), given["index"], np.ones((B, N), bool), (GRID, GRID))  # pyright: ignore
    ids, chosen = WORDS.draw(HIDDEN[1].key(key), given["index"], given["text"], given["text_mask"])
    assert np.asarray(hidden).sum(axis=1).tolist() == [N - 10] * B
    image = variables["params"]["towers_image"]
    sums: dict[str, list[Any]] = {name: [] for name in [*ALONE, *PAIRED]}
    for row in range(B):
        own = slice(row, row + 1)
        there = {name: bool(given[f"{name}_valid"][row]) for name in ("image", "text")}

        def tokens_of_image(tower: Any, own: Any = own, row: int = row) -> Any:
            """The tower with its stem's answers replaced: what is hidden can't be read in any other way."""
            patches, _ = tower.patches(jnp.asarray(given["image"][own]))
            stem = patches @ image["stem"]["kernel"] + image["stem"]["bias"]
            stem = np.where(np.asarray(hidden[row])[:, None], image["mask"], stem[0])
            x = np.concatenate([image["cls"][None] + image["position"][:1], stem + image["position"][1:]])
            return tower.transformer(jnp.asarray(x)[None])

        x = {
            "image": TOWERS["image"].apply({"params": image}, method=tokens_of_image),
            "text": TOWERS["text"].apply(
                {"params": variables["params"]["towers_text"]}, ids[own], given["text_mask"][own], method="tokens"
            )[0],
        }
        real = {"image": jnp.ones((1, N + 1), bool), "text": jnp.asarray(given["text_mask"][own])}
        fused, _ = FUSIONS["both"].apply(
            {"params": variables["params"]["fusions_both"]},
            {name: (x[name], real[name] & there[name]) for name in ("image", "text")},
        )
        both = there["image"] and there["text"]
        for name, modality, counts, tokens in (
            ("mim", "image", there["image"] and not there["text"], None),
            ("mlm", "text", there["text"] and not there["image"], None),
            ("mmm_image", "image", both, fused["image"][0]),
            ("mmm_text", "text", both, fused["text"][0]),
        ):
            if not counts:
                continue
            places, prefix = (hidden, 1) if modality == "image" else (chosen, 0)
            last, targets = ("predict", given["codes"]) if modality == "image" else ("words", given["text"])
            for place in np.flatnonzero(np.asarray(places[row])):
                if tokens is None:
                    at = np.asarray(x[modality][0, prefix + place], np.float64)
                    at = normalised(at, params[f"towers_{modality}"]["norm_post"])
                else:
                    at = np.asarray(tokens[0, prefix + place], np.float64)
                sums[name].append(surprise(at, params[f"objectives_{name}"], last, int(targets[row, place])))
    (loss, metrics), _ = whole
    for name, found in sums.items():
        assert len(found) > 3
        np.testing.assert_allclose(metrics[f"{name}/loss"], np.mean([each for each, _ in found]), rtol=2e-5)
        np.testing.assert_allclose(metrics[f"{name}/accuracy"], np.mean([hit for _, hit in found]), rtol=1e-6)
    np.testing.assert_allclose(loss, sum(metrics[f"{name}/loss"] for name in sums), rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "text", "learns"),
    [(True, False, {"mim"}), (False, True, {"mlm"}), (True, True, {"mmm_image", "mmm_text"}), (False, False, set())],
)
def test_each_kind_of_batch_has_its_losses(image: bool, text: bool, learns: set[str], run: Any, variables: Any) -> None:
    given = batch(image, text)
    (_, metrics), gradients = run(variables, given)
    for name, objective in {**ALONE, **PAIRED}.items():
        assert (float(metrics[f"{name}/loss"]) > 0.5) is (name in learns), name
        assert bool(usable(objective, given).any()) is (name in learns)
        norms = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients["params"][f"objectives_{name}"])]
        assert (max(norms) > 0) is (name in learns)
        assert name in learns or max(norms) == 0


def test_only_hidden_patches_count(variables: Any) -> None:
    """Codes of patches that the encoder saw change nothing; nor do the pixels of those that it didn't see."""
    pretrainer = build(objectives={"mim": MaskedCodes(CODES, keep=BLOCKY)})
    held = {"params": {name: variables["params"][name] for name in ("towers_image", "objectives_mim")}}
    loss = jax.jit(lambda given: pretrainer.apply(held, given, rngs=KEYS)[0])
    given = batch()
    key: Any = pretrainer.apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    hidden = HIDDEN[0].masking.draw(HIDDEN[0].key(key), given["index"], np.ones((B, N), bool), (GRID, GRID))  # pyright: ignore
    hidden = np.asarray(hidden)
    other = (given["codes"] + 1) % CODES
    first = float(loss(given))
    assert float(loss(given | {"codes": np.where(hidden, given["codes"], other).astype(np.int32)})) == first
    assert float(loss(given | {"codes": np.where(hidden, other, given["codes"]).astype(np.int32)})) != first
    pixels = np.repeat(np.repeat(hidden.reshape(B, GRID, GRID), PATCH, axis=1), PATCH, axis=2)[..., None]
    assert float(loss(given | {"image": np.where(pixels, 255 - given["image"], given["image"])})) == first
    assert float(loss(given | {"image": np.where(pixels, given["image"], 255 - given["image"])})) != first
    lacking: Any = given | {"codes_valid": np.arange(B) < 4}
    assert float(loss(lacking)) != first
    assert usable(MaskedCodes(CODES), lacking).tolist() == [False] * 2 + [True] * 2 + [False] * 4


def test_both_heads_read_one_encoding() -> None:
    """Words and patches hidden together are one view: each tower and the fusion run once."""
    views: Any = [objective.views() for objective in PAIRED.values()]
    assert views[0] == views[1]
    assert [part.input for part in views[0][0].parts] == ["image", "text"]
    beside: Any = MaskedText(**DRAWN, fusion="both", beside=("image",)).views()[0]
    assert [part.input for part in beside.parts] == ["text", "image"]
    beside = MaskedText(**DRAWN, fusion="both", beside=("image", "text")).views()[0]
    assert beside.parts == (View("image"), View("text", WORDS))


GIVEN = {"image": Incoming((16, 16, 3), "uint8"), "codes": Incoming((N,), "int32", pieces=CODES)}


@pytest.mark.parametrize(
    ("objective", "inputs", "message"),
    [
        (MaskedCodes(CODES), {"image": GIVEN["image"]}, r"o learns the codes 'codes', which data.transforms lacks"),
        (MaskedCodes(CODES), GIVEN | {"codes": Incoming((9,), "int32")}, r"gives int32\[9\]: it is int32\[16\], for"),
        (MaskedCodes(CODES - 1), GIVEN, r"o has vocab=15, and data.transforms gives 'codes' of 16 codes: set vocab=16"),
        (
            MaskedCodes(CODES, fusion="both"),
            GIVEN,
            r"o has fusion='both' and beside=\(\): set both, .* beside the image",
        ),
        (MaskedCodes(CODES, only={"texts": True}), GIVEN, r"o.only names 'texts', and the inputs beside 'image' are "),
    ],
)
def test_what_does_not_fit_is_named(objective: MaskedCodes, inputs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", TOWERS, inputs)


def test_codes_of_another_grid_and_towers_without_a_mask_token_are_refused(variables: Any) -> None:
    pretrainer = build(objectives={"mim": MaskedCodes(CODES, keep=0.5)})
    with pytest.raises(UserError, match=r"the batch's 'codes' is int32\[8, 9\], and the pictures have 16 patches"):
        jax.eval_shape(pretrainer.init, jax.random.key(0), batch() | {"codes": np.zeros((B, 9), np.int32)})
    plain = Pretrainer({"image": TOWERS["image"].clone(mask_token=False)}, {"mim": MaskedCodes(CODES)})
    with pytest.raises(
        UserError, match=r"'mim' hides patches of 'image' in their places, and towers.image has nothing"
    ):
        jax.eval_shape(plain.init, jax.random.key(0), batch())


def test_the_share_may_be_a_number() -> None:
    assert MaskedCodes(CODES, keep=0.5).views() == (View("image", CorruptPatches(Keep(0.5))),)
