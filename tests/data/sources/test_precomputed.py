"""Cached features train as the locked tower does that they come from."""

from dataclasses import replace

import fiddle as fdl
import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.precomputed import Features, Vector
from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.errors import UserError
from mmjax.inference.embed_dataset import embed
from mmjax.interop import bundle as bundles
from mmjax.models.towers.precomputed import Given
from mmjax.runtime.metrics import read
from mmjax.train.loop import train
from tests.interop.small import randomised
from tests.trained import Trained, tiny_config

SHORT = ["steps=3", "log_every=1", "batch_size=8", "optimizer.warmup_steps=1"]


@pytest.fixture(scope="module")
def model(trained: Trained, tmp_path_factory):
    """A model of two towers, in a folder."""
    pair = randomised(tiny_config(trained.table, name="pair"))
    kept = load_tokenizers(trained.workdir / "tokenizers")
    return bundles.save(replace(pair, tokenizers=kept), tmp_path_factory.mktemp("model") / "pair")


@pytest.fixture(scope="module")
def vectors(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors")
    for split in ("train", "test"):
        embed(str(model), None, out / split, split=split, modalities=["image"])
    return f"{out}/{{split}}"


def cached(trained: Trained, model, vectors, *overrides):
    config = tiny_config(trained.table, *SHORT, f"init.towers.text={model}", *overrides, name="pair")
    config.towers["image"] = fdl.Config(Given, embed_dim=8)
    config.data.sources["shapes"] = fdl.Config(Features, source=fdl.Config(Folder, trained.table), folder=vectors)
    config.data.transforms["image"] = (fdl.Config(Vector, size=8),)
    return config


def test_a_run_on_them_is_the_run_with_the_tower_locked(trained: Trained, model, vectors, tmp_path):
    """Texts learn the same, but for rounding; no tower is there to be run."""
    starts = [f"init.towers.image={model}", f"init.towers.text={model}"]
    locked = tiny_config(trained.table, *SHORT, *starts, name="pair")
    locked.optimizer.frozen = ("^towers_image/",)
    train(locked, tmp_path / "locked")
    state = train(cached(trained, model, vectors), tmp_path / "cached")
    assert sorted(state.params) == ["objectives_image_text", "towers_text"]
    slow, fast = ([line for line in read(tmp_path / name) if "loss" in line] for name in ("locked", "cached"))
    for mine, theirs in zip(fast, slow, strict=True):
        for metric in ("loss", "grad_norm/towers_text", "grad_norm/objectives_image_text"):
            np.testing.assert_allclose(mine[metric], theirs[metric], rtol=1e-4, err_msg=metric)
    assert abs(fast[2]["loss"] - fast[0]["loss"]) > 1e-2


def test_records_are_the_source_s_with_vectors(trained: Trained, vectors):
    plain, found = Folder(trained.table).open("test"), Features(Folder(trained.table), vectors).open("test")
    assert len(found) == len(plain)
    assert found[3]["text"] == plain[3]["text"]
    assert np.linalg.norm(found[3]["image"]) == pytest.approx(1, abs=1e-5)


def test_what_does_not_fit_is_named(trained: Trained, vectors, tmp_path):
    source = Folder(trained.table)
    with pytest.raises(UserError, match=r"must have \{split\} in it"):
        Features(source, "vectors").open("test")
    with pytest.raises(UserError, match=r"holds no embeddings"):
        Features(source, f"{tmp_path}/{{split}}").open("test")
    other = vectors.replace("{split}", "train")
    (tmp_path / "test").symlink_to(other)
    with pytest.raises(UserError, match=r"has embeddings of 72 examples, and the test split has 24"):
        Features(source, f"{tmp_path}/{{split}}").open("test")
    with pytest.raises(UserError, match=r"Vector\(size=4\) was given float32\[8\]"):
        Vector(4)(np.zeros(8, np.float32), None)
    with pytest.raises(BadExample, match="aren't finite"):
        Vector(1)(np.array([np.nan], np.float32), None)
    with pytest.raises(UserError, match="vectors of 8 numbers, and embed_dim=4"):
        Given(embed_dim=4).apply({}, np.zeros((1, 8), np.float32))
