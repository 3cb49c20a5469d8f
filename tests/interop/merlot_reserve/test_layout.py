"""MERLOT Reserve's files: what the released model computes, as `released.py` has it, is what is read here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.experiment.definition import Load
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules, projects
from mmjax.interop.merlot_reserve import layout
from mmjax.interop.merlot_reserve.rules import rules
from mmjax.interop.resolve import resolve
from mmjax.objectives.contract import Context
from mmjax.objectives.reserve.sequences import EncodedParts, joint_rows
from mmjax.objectives.reserve.streams import SpanRows, StreamRows
from mmjax.train.initialise import initialised, sources
from tests.interop import tables
from tests.interop.merlot_reserve import released

SEGMENTS, LENGTH, WIDTH = 2, 30, released.WIDTH
SIZE = (released.GRID[0] * released.PATCH, released.GRID[1] * released.PATCH)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return released.drawn()


@pytest.fixture(scope="module")
def file(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a state of the optimiser, which isn't read, and the tokenizer beside."""
    folder = tmp_path_factory.mktemp("released")
    released.write_tokenizer(folder / "lowercase_encoder.json")
    moments = {"0": {"mu": {"head": np.ones(3, jnp.bfloat16)}, "count": 3}}
    return released.write(folder / "base", arrays, opt_state=moments)


@pytest.fixture(scope="module")
def bundle(file: Path) -> Any:
    return layout.read(file)


def part(bundle: Any, name: str) -> Any:
    """A tower, for frames of the size at hand, and its parameters."""
    tower = build(bundle.config).towers[name]
    return tower.clone(size=SIZE) if name == "video" else tower, {
        "params": bundle.variables["params"][f"towers_{name}"]
    }


def frames_and_clips(bundle: Any) -> Any:
    """Frames, and clips with what the tower's front end makes of them."""
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (1, SEGMENTS, *SIZE, 3), np.uint8)
    tower, _ = part(bundle, "audio")
    time = np.arange(tower.samples) / tower.spectrogram.rate
    pitch = random.uniform(100, 4_000, (1, 3 * SEGMENTS, 1))
    clips = (8_000 * np.sin(2 * np.pi * pitch * time) + 200 * random.normal(size=(*pitch.shape[:2], len(time)))).astype(
        np.int16
    )
    mels = np.asarray(tower.spectrogram(jnp.asarray(clips[0])), np.float64)
    return frames, clips, np.concatenate([mels, np.ones((*mels.shape[:2], 1))], axis=-1)


@pytest.fixture(scope="module")
def encoded(bundle: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The released model's tokens of each frame and each clip, and ours."""
    held, (frames, clips, mels) = released.tree(arrays), frames_and_clips(bundle)
    theirs = (
        np.array([released.frame(one, held["vision_encoder"]) for one in frames[0]]),
        np.array([released.clip(one, held["audio_encoder"]) for one in mels]),
    )
    ours = []
    for name, given in (("video", frames), ("audio", clips)):
        tower, variables = part(bundle, name)
        tokens, _ = tower.apply(variables, jnp.asarray(given), method="tokens")
        ours.append(np.asarray(tokens).reshape(given.shape[1], -1, WIDTH))
    return theirs, ours


def test_towers_give_the_released_vectors_and_tokens(encoded: Any) -> None:
    theirs, ours = encoded
    assert [one.shape for one in theirs] == [(2, 1 + 6, WIDTH), (6, 1 + 6, WIDTH)]
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
        assert np.abs(one).max() > 0.5  # of numbers that tell something


def test_spans_and_states_are_the_released_ones(bundle: Any, encoded: Any, arrays: dict[str, np.ndarray]) -> None:
    """A row with words, with sounds and with padding, beside two frames."""
    (frames, clips), held = encoded[0], released.tree(arrays)
    ids, places = np.zeros(LENGTH, np.int32), np.zeros(LENGTH, np.int32)
    ids[:3], ids[3:21], ids[21:25] = [20, 33, 3], released.AUDIOSPAN, [45, 17, 63, 8]
    places[3:21], places[21:25] = 3 + np.arange(18) // 6, 4
    expected = released.joint(ids, places, frames[:, 1:], clips[:, 1:], held)
    sound = np.where(ids == released.AUDIOSPAN, places * 6 + (np.cumsum(ids == released.AUDIOSPAN) - 1) % 6, -1)
    spans = np.zeros((3, 15), np.int32)
    spans[0, :2], spans[1, :1], spans[2] = [20, 61], [7], np.arange(15) + 11

    def alone(x: np.ndarray) -> Any:
        return jnp.asarray(x)[None, None]

    nothing = alone(np.full(LENGTH, -1))
    told = (alone(places // 3), alone(np.where(ids > 0, 0, -1)), alone(sound))
    rows = StreamRows(alone(ids), *told, nothing, nothing, nothing, jnp.zeros((1, 1, SEGMENTS), jnp.int32))

    def forward(self: Any) -> Any:
        each = [jnp.asarray(one[None], jnp.float32) for one in (clips, frames)]
        audio, video = (EncodedParts(x[:, :, 0], x[:, :, 1:], jnp.ones(x.shape[:2], bool)) for x in each)
        states = self._states(
            {"it": joint_rows(rows, self.token(rows.ids), audio, video, self.grid)}, {"it": rows}, Context()
        )["it"]
        found = SpanRows(jnp.asarray(spans)[None], jnp.asarray((spans > 0).sum(1))[None])
        return self.head(states)[0], self._span_vectors(found, Context())[0]

    objective = build(bundle.config).objectives["reserve"].clone(grid=(2, 3))
    states, vectors = nn.apply(forward, objective)({"params": bundle.variables["params"]["objectives_reserve"]})
    real = ids > 0
    np.testing.assert_allclose(released.unit(np.asarray(states))[real], expected[real], rtol=1e-5, atol=1e-5)
    found = np.array([released.span(one, held) for one in spans])
    np.testing.assert_allclose(released.unit(np.asarray(vectors)), found, rtol=1e-5, atol=1e-5)
    scales = bundle.variables["params"]["objectives_reserve"]["log_scale"]
    np.testing.assert_array_equal(scales, arrays["contrastive_scales"].astype(np.float32))


def test_there_and_back_gives_the_same_arrays(bundle: Any, arrays: dict[str, np.ndarray]) -> None:
    back = parameter_rules.give(rules(released.DEPTHS, released.HEADS), bundle.variables, "it")
    expected = layout.plainly_numbered(arrays, "it")
    assert back.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32), err_msg=name)


def test_it_is_imported_and_loaded_as_any_model(file: Path, bundle: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["import", str(file), str(tmp_path / "out")]) == 0
    assert "doesn't say the size of frames: it is read with 192x320 pixels" in capsys.readouterr().out
    model = mmjax.load(tmp_path / "out")
    assert model.modalities == ("video", "audio")
    assert model.towers["video"].scaled
    assert model.towers["audio"].scaled
    assert model.experiment.objectives["reserve"].scaled
    found = tables.flat(model.variables)
    for name, array in tables.flat(bundle.variables).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_its_tokenizer_s_ids_are_the_table_s_rows(bundle: Any) -> None:
    words = build(bundle.config).data.transforms["words"][-1].with_tokenizer(bundle.tokenizers["words"])
    assert words.whole("aB") == [10, 11, 12]  # the space, and letters; nothing is raised
    assert words.ids.mask == 3
    assert bundle.config.objectives["reserve"].special == 0


def test_a_file_that_is_called_so_has_the_larger_frames(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    bundle = resolve(released.write(tmp_path / "large_resadapt", arrays), say=lambda text: None)
    assert bundle.tokenizers == {}
    assert bundle.config.towers["video"].size == (288, 512)
    assert bundle.config.objectives["reserve"].grid == (36, 64)


def test_a_part_starts_from_it_with_its_own_size_of_frames_and_its_rotary_positions(file: Path, bundle: Any) -> None:
    tower, variables = part(bundle, "video")
    zeros = {"params": {"towers_video": {name: leaf for name, leaf in variables["params"].items()}}}
    experiment: Any = SimpleNamespace(init={"towers.video": Load(str(file))}, towers={"video": tower})
    said: list[str] = []
    found = sources(experiment, said.append)
    ours = initialised(zeros, experiment, found, said.append)["params"]["towers_video"]
    np.testing.assert_array_equal(ours["stem"]["kernel"], variables["params"]["stem"]["kernel"])
    experiment.towers["video"] = tower.clone(scaled=False)
    with pytest.raises(UserError, match=r"there rotary positions scale channels, and towers\.video\.scaled=False"):
        initialised(zeros, experiment, found, said.append)


@pytest.mark.parametrize(
    ("size", "depths", "parameters"),
    [
        (768, {"vision_encoder": 12, "audio_encoder": 12, "span_encoder": 4, "joint_transformer": 12}, 316_412_163),
        (1_024, {"vision_encoder": 24, "audio_encoder": 12, "span_encoder": 4, "joint_transformer": 24}, 853_117_955),
    ],
)
def test_published_sizes(size: int, depths: dict[str, int], parameters: int) -> None:
    """Names and shapes alone."""
    arrays = layout.plainly_numbered(tables.hollow(released.shapes(size, depths, 32_768, 16)), "it")
    parts = layout.model_parts(arrays, (192, 320), "it")
    found, used = tables.taken(rules(depths, size // 64), arrays)
    assert used == set(arrays)
    made = bundles.variables_of(build(bundles.stand_in(*parts[:2], layout.reserve_chains(parts, (192, 320)))))
    assert found == {path: leaf.shape for path, leaf in tables.flat(made).items()}
    assert sum(int(np.prod(shape)) for shape in found.values()) == parameters


def without(name: str) -> Any:
    return lambda arrays: {path: array for path, array in arrays.items() if not path.startswith(name)}


def beside(name: str, *shape: int) -> Any:
    return lambda arrays: {**arrays, name: np.zeros(shape, np.float16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("span_encoder"), "is no pretrained checkpoint of MERLOT Reserve: it lacks span_encoder/transformer"),
        (without("head"), "lacks 2 arrays that this model needs: head/kernel, head/bias"),
        (beside("proj/kernel", WIDTH, 1), "has 1 arrays that have no place in this model: proj/kernel"),
        (beside("joint_transformer/pe", 9, WIDTH), "no place in this model: joint_transformer/pe"),
        (beside("joint_transformer/layer_1/pre_attn_ln/bias", WIDTH), "layers whose numbers are equal"),
        (beside("joint_transformer/layer_00/attention_layer/qkv/kernel", WIDTH, 12, 32), "heads of 32 channels, 128"),
        (beside("audio_encoder/embedding/kernel", 2, 81, WIDTH), "isn't of frames with 65 channels"),
        (beside("vision_encoder/embedding/kernel", 50, WIDTH), "is of no square patches of"),
        (beside("contrastive_scales", 2), r"log_scale is \(2,\), and the model's is \(3,\)"),
        (lambda arrays: {**arrays, "head/bias": 3}, "params/head/bias is int, no array"),
    ],
)
def test_what_is_no_such_model_is_refused(
    change: Any, message: str, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = released.write(tmp_path / "ckpt_5", change(arrays))
    with pytest.raises(UserError, match=message):
        layout.read(path)


def test_damaged_files_and_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(file.read_bytes()[:-99])
    with pytest.raises(UserError, match=r"short can't be read as flax's msgpack, it is damaged"):
        resolve(tmp_path / "short")
    (tmp_path / "empty").write_bytes(b"\x81\xa4step\x07")
    with pytest.raises(UserError, match="empty is no state of a training: it has no params"):
        resolve(tmp_path / "empty")
    (tmp_path / "text").write_text("step, params")
    with pytest.raises(UserError, match=r"text is no model: a file must be .*, or flax's msgpack\. .*MERLOT Reserve's"):
        resolve(tmp_path / "text")
    assert "merlot_reserve" not in projects.layouts()
    with pytest.raises(UserError, match="which is only read"):
        layout.write(layout.read(file), tmp_path / "out")
