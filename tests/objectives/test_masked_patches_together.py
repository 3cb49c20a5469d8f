"""CAV-MAE's objectives and the layer that its towers share, held to a plain version of one example at a time, in which
that layer is three ordinary ones with the same matrices."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.special import logsumexp

from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from mmjax.experiment.resume import unresumable
from mmjax.models import (
    AudioTransformer,
    Blocks,
    JointDecoder,
    LogMel,
    MultiwayTrunk,
    TextTransformer,
    ThroughTrunk,
    ViT,
)
from mmjax.models.layers.positions import sincos
from mmjax.models.layers.transformer import Transformer
from mmjax.objectives import Contrastive, Corrupt, Keep, MaskedPatchesTogether, Pretrainer
from mmjax.objectives.contract import Context, View, usable
from mmjax.objectives.encoded import EncodedFused, EncodedKept
from mmjax.objectives.masked import normalised_patches
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import STEM, assert_same, stems

B, D, DECODER, SAMPLES = 8, 8, 8, 2_400
KEY = jax.random.key(3)
EARLY = Blocks(width=D, depth=2, heads=2, mlp_dim=STEM, norm_eps=1e-5, remat=None)
JOINT = Blocks(width=D, depth=1, heads=2, mlp_dim=STEM, norm_eps=1e-5, remat=None)
DECODING = Blocks(width=DECODER, depth=1, heads=2)
SEEN = {"audio": Keep(0.25), "image": Keep(0.5)}
GRIDS = {"audio": (4, 2), "image": (3, 3)}


def build(microbatches: int = 1, order: tuple[str, ...] = ("masked", "contrast")) -> Any:
    trunk = MultiwayTrunk(blocks=JOINT, ways=("audio", "image"), apart="norms", joint=1)
    shared: dict[str, Any] = {"trunk": trunk, "early": EARLY, "positions": "sincos", "pooling": "mean"}
    mels = LogMel(window=400, hop=160, fft=512, mels=8)
    objectives = {
        "contrast": Contrastive(("image", "audio"), masking=SEEN, scale_init=20.0, direction="forward", method="dense"),
        "masked": MaskedPatchesTogether("together", ("audio", "image"), SEEN, JointDecoder(blocks=DECODING)),
    }
    return Pretrainer(
        towers={
            "audio": AudioTransformer(way="audio", spectrogram=mels, samples=SAMPLES, patch=(4, 4), **shared),
            "image": ViT(way="image", patch=4, size=12, **shared),
        },
        fusions={"together": ThroughTrunk(trunk=trunk)},
        objectives={name: objectives[name] for name in order},
        microbatches=microbatches,
    )


@pytest.fixture(scope="module")
def batch() -> Any:
    """One lacks its sound and one its picture; some sounds are shorter."""
    draw = np.random.default_rng(0)
    lengths = np.array([2_400, 1_300, 2_400, 1_300, 2_400, 2_400, 1_300, 2_400])
    return {
        "image": draw.integers(0, 256, (B, 12, 12, 3), np.uint8),
        "image_valid": np.arange(B) != 5,
        "audio": draw.integers(-9_000, 9_000, (B, SAMPLES), np.int16),
        "audio_mask": (np.arange(SAMPLES) < lengths[:, None]) & (np.arange(B) != 4)[:, None],
        "audio_valid": np.arange(B) != 4,
        "index": np.arange(B, dtype=np.uint32) + 7,
    }


def drawn(pretrainer: Any, batch: Any) -> Any:
    """Nothing is zero or one, and the scale is 20."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, {"params": KEY, "mask": KEY}, batch))
    variables = jax.tree.map(lambda x: jnp.float32(0.3 * random.normal(size=x.shape)), shapes)
    if "objectives_contrast" in variables["params"]:
        variables["params"]["objectives_contrast"]["log_scale"] = jnp.log(jnp.float32(20.0))
    return variables


@pytest.fixture(scope="module")
def variables(batch: Any) -> Any:
    return drawn(build(), batch)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(
            lambda variables, batch: pretrainer.apply(variables, batch, rngs={"mask": KEY}), has_aux=True
        )
    )


@pytest.fixture(scope="module")
def step() -> Any:
    return gradient(build())


@pytest.fixture(scope="module")
def whole(step: Any, variables: Any, batch: Any) -> Any:
    return step(variables, batch)


def joint(trunk: Any, way: str) -> Any:
    """The parameters of the last layer for one use of it, as those of an ordinary transformer of one layer."""
    layer = trunk["joint"]
    renamed = {name: layer[f"{name}_{way}"] for name in ("norm_attention", "norm_mlp")}
    blocks = {"attention": layer["attention"], "mlp": layer["mlp"], **renamed}
    return {"params": {"blocks": blocks, "norm": trunk[f"norm_{way}"]}}


@pytest.fixture(scope="module")
def one_by_one(variables: Any, batch: Any) -> Any:
    """The losses by the paper's words, each example alone, without what it lacks: nothing is padded or masked."""
    params = jax.tree.map(np.asarray, variables["params"])
    pretrainer = build()
    trunk, objective = params["towers_audio"]["trunk"], params["objectives_masked"]
    decoder, key = objective["decoder"], pretrainer.bind(variables, rngs={"mask": KEY}).make_rng("mask")
    early = jax.jit(Transformer(EARLY, final_norm=False).apply)
    last = jax.jit(Transformer(JOINT).apply)
    decode = jax.jit(Transformer(DECODING).apply)
    errors: dict[str, list[float]] = {"audio": [], "image": []}
    vectors: dict[str, dict[int, Any]] = {"audio": {}, "image": {}}
    for row in range(B):
        met, kept, targets = [], {}, {}
        for name in ("audio", "image"):
            if not batch[f"{name}_valid"][row]:
                continue
            tower, own = pretrainer.towers[name].clone(parent=None), params[f"towers_{name}"]
            mask = batch["audio_mask"][row : row + 1] if name == "audio" else None
            patches, real = tower.apply({"params": own}, batch[name][row : row + 1], mask, method="patches")
            view = View(name, SEEN[name])
            keep = np.asarray(SEEN[name].draw(view.key(key), batch["index"][row : row + 1], real)[0])
            kept[name], patches, real = keep[keep >= 0], np.asarray(patches[0]), np.asarray(real[0])
            assert len(kept[name]) == np.ceil(SEEN[name].share * real.sum())
            targets[name] = (np.asarray(normalised_patches(jnp.asarray(patches))), real)
            tokens = patches @ own["stem"]["kernel"] + own["stem"]["bias"] + sincos(GRIDS[name], D) + own["kind"]
            tokens = np.asarray(early({"params": own["transformer"]}, tokens[kept[name]][None]))
            met.append(tokens)
            vector = np.asarray(last(joint(trunk, name), tokens))[0].mean(axis=0)
            vectors[name][row] = vector / np.linalg.norm(vector)
        states = np.asarray(last(joint(trunk, "all"), np.concatenate(met, axis=1)))[0]
        states = states @ decoder["stem"]["kernel"] + decoder["stem"]["bias"]
        sequence, owner = [], []
        for number, name in enumerate(("audio", "image")):
            if name in kept:
                target, real = targets[name]
                placed = np.tile(decoder["mask"][number], (len(target), 1))
                placed[kept[name]], states = states[: len(kept[name])], states[len(kept[name]) :]
                placed = placed + sincos(GRIDS[name], DECODER) + decoder["kind"][number]
                sequence.append(placed[real])
                owner += [name] * real.sum()
        decoded = np.asarray(decode({"params": decoder["transformer"]}, np.concatenate(sequence)[None]))[0]
        for name, (target, real) in targets.items():
            head = objective[f"predict_{name}"]
            predicted = decoded[np.array(owner) == name] @ head["kernel"] + head["bias"]
            error = ((predicted - target[real]) ** 2).mean(axis=1)
            errors[name] += list(error[~np.isin(np.flatnonzero(real), kept[name])])
    sounds = np.stack(list(vectors["audio"].values()))
    pairs = [row for row in vectors["image"] if row in vectors["audio"]]
    logits = [20 * np.append(sounds @ vectors["image"][row], vectors["audio"][row] @ vectors["image"][row])
              for row in pairs]  # fmt: skip
    contrast = np.mean([logsumexp(one[:-1]) - one[-1] for one in logits])
    return {name: np.mean(some) for name, some in errors.items()} | {"contrast": contrast}


def test_each_example_alone(whole: Any, one_by_one: Any) -> None:
    (loss, metrics), _ = whole
    for name in ("audio", "image"):
        np.testing.assert_allclose(metrics[f"masked/{name}_loss"], one_by_one[name], rtol=1e-5)
    np.testing.assert_allclose(metrics["masked/loss"], one_by_one["audio"] + one_by_one["image"], rtol=1e-5)
    np.testing.assert_allclose(metrics["contrast/loss"], one_by_one["contrast"], rtol=2e-5)  # of logits up to 20
    np.testing.assert_allclose(loss, sum(one_by_one.values()), rtol=2e-5)


def test_the_cut_changes_nothing(variables: Any, batch: Any, whole: Any) -> None:
    assert_same(gradient(build(4))(variables, batch), whole, 1e-5)


@pytest.mark.parametrize(
    ("shape", "microbatches"), [((2, 2, 2), 2), pytest.param((8, 1, 1), 1, marks=pytest.mark.slow)], ids=str
)
def test_a_mesh_changes_nothing(shape: Any, microbatches: int, variables: Any, batch: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(microbatches))(replicated, rows), whole, 1e-5)


def test_what_is_missing_or_padded_changes_nothing_and_all_else_learns(
    step: Any, variables: Any, batch: Any, whole: Any
) -> None:
    other = dict(batch, image=batch["image"].copy(), audio=np.where(batch["audio_mask"], batch["audio"], 77))
    other["image"][5] = 200
    jax.tree.map(np.testing.assert_array_equal, step(variables, other), whole)
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1]):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("order", [("contrast", "masked"), ("masked", "contrast")], ids=str)
def test_both_losses_read_one_encoding(order: Any, batch: Any) -> None:
    """Products of the MLPs' first matrices: each tower's own blocks once (a scan is one), the shared layer three times,
    whichever loss comes first; without contrast it goes over both together alone."""
    assert stems(build(order=order), batch) == 2 + 3
    assert stems(build(order=("masked",)), batch) == 2 + 1


def test_without_contrast_the_loss_is_the_same(variables: Any, batch: Any, whole: Any) -> None:
    """The fronts of the towers are made another way then."""
    only = build(order=("masked",))
    shapes = nn.unbox(jax.eval_shape(only.init, {"params": KEY, "mask": KEY}, batch))["params"]
    held = {name: variables["params"][name] for name in shapes}
    found: Any = jax.jit(lambda v: only.apply(v, batch, rngs={"mask": KEY}))({"params": held})
    np.testing.assert_allclose(found[0], whole[0][1]["masked/loss"], rtol=1e-6)


def test_a_cls_of_each_goes_before_all_patches() -> None:
    """Tokens carry their number: of each input a CLS and two patches."""
    seen: Any = {}

    class Recorded(nn.Module):
        @nn.compact
        def __call__(self, tokens: Any, mask: Any, kept: Any, prefix: int) -> Any:
            seen.update(tokens=tokens[0, :, 0], mask=mask[0], prefix=prefix, real=[part.patch_mask for part in kept])
            return [jnp.zeros((2, 4, 3)) for _ in kept]

    def part(first: int) -> Any:
        tokens = jnp.broadcast_to(jnp.arange(first, first + 3.0)[:, None], (2, 3, 5))
        mask, keep = jnp.ones((2, 3), bool).at[:, 2].set(first == 0), jnp.array([[1, 2], [0, 3]])
        return EncodedKept(
            tokens, mask, jnp.zeros((2, 5)), 1,
            patches=jnp.ones((2, 4, 7)), patch_mask=jnp.ones((2, 4), bool), keep=keep, grid=(2, 2),
        )  # fmt: skip

    objective = MaskedPatchesTogether("both", ("audio", "image"), SEEN, Recorded(), normalise=False)
    encoded = {objective.views()[0]: EncodedFused(jnp.zeros((2, 5)), (part(0), part(10)))}
    batch = {"audio_valid": np.array([True, False]), "image_valid": np.array([True, True])}
    params = objective.init(KEY, encoded, batch, Context(), method="per_example")
    found: Any = objective.apply(params, encoded, batch, Context(), method="per_example")
    np.testing.assert_array_equal(seen["tokens"], [0, 10, 1, 2, 11, 12])
    np.testing.assert_array_equal(seen["mask"], [True, True, True, True, True, False])
    assert seen["prefix"] == 2
    np.testing.assert_array_equal(seen["real"][0].any(axis=1), [True, False])
    # Nothing is predicted yet, of patches of ones: each hidden one has an error of 1, and a missing input has none.
    np.testing.assert_array_equal([found["audio"].total, found["image"].total], [[2, 0], [2, 2]])
    np.testing.assert_array_equal([found["audio"].count, found["image"].count], [[2, 0], [2, 2]])
    there: Any = {"audio_valid": np.zeros(2, bool), "image_valid": np.array([True, False])}
    np.testing.assert_array_equal(usable(objective, there), [True, False])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"masking": {"audio": Keep(0.5)}}, r"inputs=\('audio', 'image'\) and masking=.*'image': Keep\(0.25\) say"),
        ({"inputs": ("audio",)}, r"each of them has one that keeps patches, 'image'"),
        ({"masking": {"audio": Keep(0.5), "image": Corrupt(vocab=9)}}, "'image': Keep"),
        ({"inputs": ("audio", "text"), "masking": {"audio": Keep(0.5), "text": Keep(0.5)}}, "'text' are token ids"),
    ],
)
def test_what_does_not_fit_is_an_error(fields: dict[str, Any], message: str) -> None:
    given = {"inputs": ("audio", "image"), "masking": SEEN, **fields}
    text = TextTransformer(vocab=9, length=4, pooling="mean", blocks=JOINT)
    with pytest.raises(UserError, match=f"^objectives.masked .*{message}"):
        MaskedPatchesTogether("both", decoder=None, **given).check_parts(
            "objectives.masked", build().towers | {"text": text}, {}
        )


def test_a_run_goes_on_with_another_remat_of_the_blocks_before_the_trunk() -> None:
    name = "experiments/cav_mae.py:tiny"
    before = load_experiment(name)
    assert unresumable(before, load_experiment(name, ["towers.image.early.remat=full"])) == []
    assert unresumable(before, load_experiment(name, ["towers.image.early.depth=2"])) != []
