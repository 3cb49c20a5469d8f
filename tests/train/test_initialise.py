import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest

from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.errors import UserError
from mmjax.experiment.definition import Load
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop.export import export
from mmjax.interop.resolve import resolve
from mmjax.models import Frames
from mmjax.models.layers.positions import resize
from mmjax.runtime.checkpoints import restore_variables
from mmjax.train.initialise import initialised, sources, tokenizers
from mmjax.train.loop import train
from tests.interop.small import clip, randomised
from tests.trained import Trained, pair_config, tiny_config


def quiet(text: str) -> None:
    pass


def zeros(variables):
    return jax.tree.map(np.zeros_like, variables)


def test_a_workdir_given_on_the_command_line_is_where_a_tower_starts(trained: Trained):
    experiment = build(tiny_config(trained.table, f"init.towers.image={trained.workdir}"))
    theirs = resolve(trained.workdir).variables
    said = []
    ours = initialised(zeros(theirs), experiment, sources(experiment, said.append), said.append)["params"]
    jax.tree.map(np.testing.assert_array_equal, ours["towers_image"], theirs["params"]["towers_image"])
    assert all(not leaf.any() for leaf in jax.tree.leaves(ours["towers_text"]))
    assert len(said) == 1
    assert said[0].startswith(f"init towers.image from {trained.workdir}: loaded ")


def test_an_objective_starts_from_another_s(trained: Trained):
    """The logit scale comes along where a run goes on in another way (FLIP's unmasked tuning)."""
    experiment = build(tiny_config(trained.table, f"init.objectives.image_text={trained.workdir}"))
    theirs = resolve(trained.workdir).variables
    ours = initialised(zeros(theirs), experiment, sources(experiment, quiet), quiet)["params"]
    np.testing.assert_array_equal(
        ours["objectives_image_text"]["log_scale"], theirs["params"]["objectives_image_text"]["log_scale"]
    )
    del ours["objectives_image_text"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(ours))
    assert tokenizers(experiment, sources(experiment, quiet), quiet) == {}


def test_an_exported_folder_does_too_and_batch_statistics_come_along(trained: Trained, tmp_path):
    export(trained.workdir, tmp_path / "out", say=quiet)
    experiment = build(tiny_config(trained.table, f"init.towers.image={tmp_path / 'out'}"))
    found = sources(experiment, quiet)
    statistics = {"towers_image": {"mean": np.full(3, 2.0)}}
    found["towers.image"].variables["batch_stats"] = statistics
    fresh = {**zeros(resolve(trained.workdir).variables), "batch_stats": {"towers_image": {"mean": np.zeros(3)}}}
    ours = initialised(fresh, experiment, found, quiet)
    assert ours["params"]["towers_image"]["stem"]["kernel"].any()
    np.testing.assert_array_equal(ours["batch_stats"]["towers_image"]["mean"], np.full(3, 2.0))
    assert not fresh["batch_stats"]["towers_image"]["mean"].any()


def test_a_tower_within_another_starts_from_one_of_another_name(trained: Trained):
    tower = build(tiny_config(trained.table)).towers["image"]
    params = {"towers_video": {"frame": zeros(resolve(trained.workdir).variables["params"]["towers_image"])}}
    params["towers_video"]["position"] = np.ones((3, 4), np.float32)
    loads = {"towers.video.frame": Load(str(trained.workdir), of="towers.image")}
    experiment: Any = SimpleNamespace(init=loads, towers={"video": Frames(frame=tower)})
    found = sources(experiment, quiet)
    ours = initialised({"params": params}, experiment, found, quiet)["params"]["towers_video"]
    theirs = restore_variables(trained.workdir)["params"]["towers_image"]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), ours["frame"], theirs)
    assert (ours["position"] == 1).all()
    assert not params["towers_video"]["frame"]["stem"]["kernel"].any()
    shared = {"params": {"towers_video": {"position": np.ones(3)}, "towers_image": params["towers_video"]["frame"]}}
    with pytest.raises(UserError, match=r"towers\.video\.frame has no parameters of its own here"):
        initialised(shared, experiment, found, quiet)
    experiment.init = {"towers.video.frame": Load(str(trained.workdir), of="towers.picture")}
    with pytest.raises(UserError, match=r"has no towers\.picture; it has towers\.image, "):
        sources(experiment, quiet)
    experiment.init = {"towers.video.frame": Load(str(trained.workdir))}
    with pytest.raises(UserError, match=r"has no towers\.video\.frame.*Load\(..., of=...\) names another part"):
        sources(experiment, quiet)


def test_what_cannot_be_started_from_is_named(trained: Trained, tmp_path):
    experiment = build(tiny_config(trained.table, f"init.towers.image={tmp_path}"))
    with pytest.raises(UserError, match=r"holds no model"):
        sources(experiment, quiet)
    bundles.save(clip(), tmp_path / "pair")
    experiment = build(tiny_config(trained.table, f"init.towers.audio={tmp_path / 'pair'}"))
    with pytest.raises(UserError, match=r"pair has no towers.audio; it has towers.image, towers.text"):
        sources(experiment, quiet)


def test_the_tokenizer_comes_with_the_text_tower_if_it_is_the_same(trained: Trained):
    experiment = build(tiny_config(trained.table, f"init.towers.text={trained.workdir}"))
    said = []
    found = tokenizers(experiment, sources(experiment, quiet), said.append)
    assert found == load_tokenizers(trained.workdir / "tokenizers")
    assert said == [f"init towers.text from {trained.workdir}: its tokenizer is taken too"]
    other = "data.transforms.text.0.tokenizer.vocab_size=60"
    experiment = build(tiny_config(trained.table, f"init.towers.text={trained.workdir}", other))
    said.clear()
    assert tokenizers(experiment, sources(experiment, quiet), said.append) == {}
    assert "the tokenizer is another one, SentencePiece(vocab_size=60" in said[0]


def test_a_tokenizer_of_another_run_is_that_of_the_tower_that_starts_there(trained: Trained, tmp_path):
    """An empty path takes it; the path of its file is the same model, and another file's is said."""
    theirs = load_tokenizers(trained.workdir / "tokenizers")["text"]
    (tmp_path / "same.model").write_bytes(theirs.model)
    (tmp_path / "other.model").write_bytes(SentencePiece(60).train(["quite another text", "of other letters"]))
    cases = ("", True, "its tokenizer is taken too"), ("same", False, ""), ("other", False, "another one")
    for path, taken, words in cases:
        full = path and f"{tmp_path / path}.model"
        config = tiny_config(trained.table, f"init.towers.text={trained.workdir}")
        config.data.transforms["text"][0].tokenizer.path = full
        experiment = build(config)
        said: list[str] = []
        found = tokenizers(experiment, sources(experiment, quiet), said.append)
        assert found == ({"text": theirs} if taken else {})
        assert [words in line for line in said] == ([True] if words else []), said


def test_a_run_starts_from_an_export_with_its_tokenizer_and_from_a_run_whose_positions_are_resized(
    trained: Trained, pair_trained: Trained, tmp_path, capsys, programs
):
    """The texts: captions of its own, from which a tokenizer would have come out otherwise. The pictures: same width,
    but patches of 4 instead of 8, so the stem can't be taken over, and the 2x2 positions become 4x4."""
    folder = Path(trained.table).parent
    rows = [line.split(",") for line in Path(trained.table).read_text().splitlines()]
    moved = [[str(folder / row[0]), "", f"one {row[2][::-1]}", *row[3:]] for row in rows[1:]]
    table = tmp_path / "shapes.csv"
    table.write_text("\n".join(",".join(row) for row in [rows[0], *moved]))
    kept = load_tokenizers(trained.workdir / "tokenizers")
    theirs = replace(randomised(tiny_config(trained.table, name="pair")), tokenizers=kept)
    out = bundles.save(theirs, tmp_path / "out")
    starts = (f"init.towers.text={out}", "towers.image.patch=4", "optimizer.peak_lr=1e-30", "seed=1")
    config = pair_config(str(table), "steps=1", *starts)
    config.init["towers.image"] = fdl.Config(Load, path=str(pair_trained.workdir))
    with pytest.raises(UserError, match=r"1 parameters have no counterpart.*\n  stem/kernel \(48, 16\): .*\(192, 16\)"):
        train(config, tmp_path / "run")
    config.init["towers.image"].skip = ("^stem/kernel",)
    state = train(config, tmp_path / "run")
    assert load_tokenizers(tmp_path / "run" / "tokenizers") == kept
    ours, start = state.params["towers_text"], theirs.variables["params"]["towers_text"]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), ours, start)
    ours, start = state.params["towers_image"], restore_variables(pair_trained.workdir)["params"]["towers_image"]
    for leaf, other in zip(*(jax.tree.leaves(tower["transformer"]) for tower in (ours, start)), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), other)
    np.testing.assert_allclose(ours["position"], resize(start["position"], (2, 2), (4, 4)), atol=1e-6)
    said = capsys.readouterr().out
    assert re.search(r"init towers\.image from .*: loaded \d+: ", said)
    assert re.search(r"init towers\.image from .*: fresh 1: stem/kernel", said)
