"""A model in a folder: what was saved comes back, and what isn't whole or doesn't fit is named."""

from dataclasses import replace

import fiddle as fdl
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from mmjax.data.pipeline import Mixture
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop.bundle import Bundle
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.optim.optimizers import AdamW
from tests.runtime.files.test_archives import in_little_memory


def config(**changes):
    towers = {
        "image": fdl.Config(
            ViT, patch=4, size=8, blocks=fdl.Config(Blocks, width=8, depth=2, heads=2), embed_dim=6, pooling="mean"
        ),
        "text": fdl.Config(
            TextTransformer, vocab=64, length=5, blocks=fdl.Config(Blocks, width=8, depth=1, heads=2), embed_dim=6
        ),
    }
    transforms = {
        "image": (fdl.Config(Decode), fdl.Config(Resize, 8)),
        "text": (fdl.Config(Tokenize, fdl.Config(SentencePiece, 64), 5),),
    }
    objectives = {"pair": fdl.Config(Contrastive, ("image", "text"))}
    fields = {
        "towers": towers,
        "objectives": objectives,
        "data": fdl.Config(Mixture, {}, transforms),
        "optimizer": fdl.Config(AdamW, peak_lr=1e-3),
        "batch_size": 4,
        "steps": 1,
    }
    return fdl.Config(Experiment, **fields | changes)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    shapes = bundles.variables_of(build(config()))
    variables = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    tokenizer = PieceTokenizer(SentencePiece(64).train(["a red disc", "a blue bar", "the green cross"]))
    return Bundle(config(), variables, {"text": tokenizer}, "test")


def test_it_comes_back(model, tmp_path):
    bundles.save(model, tmp_path / "out" / "model")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model"]  # nothing half-written beside it
    again = bundles.read(tmp_path / "out" / "model")
    assert not diff(model.config, again.config)
    assert again.tokenizers == model.tokenizers
    ours, theirs = flatten_dict(model.variables), flatten_dict(again.variables)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(theirs[path], leaf)


def test_a_model_is_written_over_an_older_one_and_over_nothing_else(model, tmp_path):
    bundles.save(model, tmp_path / "model")
    (tmp_path / "model" / "old").touch()
    bundles.save(model, tmp_path / "model")
    assert not (tmp_path / "model" / "old").exists()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.png").touch()
    for taken in ("pictures", "pictures/cat.png"):
        with pytest.raises(UserError, match="is there already and is no exported model"):
            bundles.save(model, tmp_path / taken)
    assert (tmp_path / "pictures" / "cat.png").exists()


def test_an_encoder_alone_needs_no_objective():
    alone = config(objectives={})
    shapes = bundles.variables_of(build(alone))
    assert set(shapes["params"]) == {"towers_image", "towers_text"}
    assert (
        shapes["params"]["towers_image"].keys()
        == bundles.variables_of(build(config()))["params"]["towers_image"].keys()
    )


def test_what_is_missing_broken_or_of_another_model_is_named(model, tmp_path):
    folder = bundles.save(model, tmp_path / "model")
    other = config()
    other.towers["image"].blocks.width = 16
    with pytest.raises(UserError, match=r"stem/kernel is \(48, 8\), and the model's is \(48, 16\)"):
        bundles.check_bundle(Bundle(other, model.variables))
    fewer = {"params": {k: v for k, v in model.variables["params"].items() if k != "towers_text"}}
    with pytest.raises(UserError, match=r"params/towers_text/\S+ \(.*\) is missing"):
        bundles.check_bundle(Bundle(model.config, fewer))
    more = {"params": {**model.variables["params"], "towers_audio": {"scale": np.zeros(3)}}}
    with pytest.raises(UserError, match=r"params/towers_audio/scale \(3,\) has no place"):
        bundles.check_bundle(Bundle(model.config, more))
    (folder / "params.safetensors").write_bytes((folder / "params.safetensors").read_bytes()[:-5])
    with pytest.raises(UserError, match="can't be read"):
        bundles.read(folder)
    (folder / "params.safetensors").unlink()
    with pytest.raises(UserError, match=r"is no exported model: it has no params\.safetensors"):
        bundles.read(folder)


@pytest.mark.parametrize("name", ["params.safetensors", "experiment.json", "tokenizers/text.model"])
def test_no_bit_is_flipped_unseen(model, tmp_path, name):
    tokenizer = PieceTokenizer(SentencePiece(20).train(["red", "green"]))
    folder = bundles.save(replace(model, tokenizers={"text": tokenizer}), tmp_path / "model")
    assert bundles.read(folder).tokenizers["text"] == tokenizer
    contents = bytearray((folder / name).read_bytes())
    place = contents.index(b'"seed": 0') + 8 if name == "experiment.json" else len(contents) - 9
    contents[place] ^= 1
    (folder / name).write_bytes(contents)
    with pytest.raises(UserError, match=r"isn't what mmjax wrote|has other contents than were written"):
        bundles.read(folder)


def test_another_model_is_told_by_the_header_before_a_number_is_read(model, tmp_path):
    folder = bundles.save(model, tmp_path / "model")
    bundles.read(folder)  # what is traced is traced
    save_file({"params/other": np.zeros((2**23, 4), np.float32)}, folder / "params.safetensors")
    with in_little_memory(), pytest.raises(UserError, match="model doesn't hold the experiment's parameters"):
        bundles.read(folder)


def test_half_the_size_and_rounded_to_it(model, tmp_path):
    rounded = bundles.halved(model)
    folders = [bundles.save(rounded, tmp_path / name, half=name == "half") for name in ("half", "whole")]
    sizes = [(folder / "params.safetensors").stat().st_size for folder in folders]
    assert sizes[0] < 0.7 * sizes[1]  # of a tiny model the names of its arrays are a good part
    again, before, wanted = (
        {path: np.asarray(leaf) for path, leaf in flatten_dict(bundle.variables).items()}
        for bundle in (bundles.read(folders[0]), model, rounded)
    )
    for path, leaf in wanted.items():
        assert again[path].dtype == np.float32
        np.testing.assert_array_equal(again[path], leaf)
        np.testing.assert_allclose(leaf, before[path], rtol=2**-10, atol=1e-7)
    large = {"params": {**model.variables["params"], "objectives_pair": {"log_scale": np.float32(1e5)}}}
    with pytest.raises(UserError, match=r"params/objectives_pair/log_scale holds 100000, .*leave out --half"):
        bundles.halved(Bundle(model.config, large))
