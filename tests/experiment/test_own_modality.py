"""A modality that no file of mmjax names, a loss and an evaluator of one's own work by their names, from one experiment
file: it trains, resumes, is judged, embedded and loaded."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.data import embedding_files
from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from mmjax.inference.embed_dataset import embed
from mmjax.inference.model import Model
from mmjax.train.loop import train
from tests.depth import BROKEN, write_rooms


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> tuple[Path, Path]:
    """The experiment's file, and a workdir of its run."""
    file, workdir = write_rooms(tmp_path_factory.mktemp("rooms")), tmp_path_factory.mktemp("runs") / "rooms"
    train(load_experiment(f"{file}:depths"), workdir, name=f"{file}:depths")
    return file, workdir


def logged(workdir: Path) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        found.setdefault(line["step"], {}).update(line)
    return found


def test_it_trains_and_is_judged(rooms):
    _, workdir = rooms
    steps = logged(workdir)
    assert all(np.isfinite(steps[step]["seen/loss"]) for step in range(1, 5))
    last = steps[4]
    assert [last[f"retrieval/depth->image/{name}"] for name in ("queries", "candidates")] == [8, 8]
    assert last["retrieval/image->depth/R@10"] == 1.0  # of eight
    assert steps[4]["near/far"] < steps[1]["near/far"]
    assert 0 < last["spread/depth"] < 1
    (bad,) = [json.loads(line) for line in (workdir / "bad_examples.jsonl").read_text().splitlines()]
    assert bad == {"step": bad["step"], "source": "rooms", "id": f"{BROKEN}.png", "modality": "depth"} | {
        "kind": "undecodable"
    }


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(rooms, tmp_path):
    file, workdir = rooms
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    train(load_experiment(f"{file}:depths"), copy, name=f"{file}:depths")
    first, again = (mmjax.load(path, code=file).params for path in (workdir, copy))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert logged(copy)[4]["seen/loss"] == logged(workdir)[4]["seen/loss"]


@pytest.fixture(scope="module")
def model(rooms) -> Model:
    return mmjax.load(rooms[1], code=rooms[0])


def test_it_is_embedded_by_its_name(rooms, model: Model):
    folder = rooms[0].parent
    files = [folder / f"{row}.npy" for row in range(3)]
    arrays = np.stack([np.load(file)[..., None] for file in files])
    several = model.embed(depth=files)
    assert several.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(several, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.embed(depth=arrays), several, rtol=1e-5)
    np.testing.assert_allclose(model.embed(depth=arrays[0]), several[0], rtol=1e-5)
    np.testing.assert_allclose(model.embed(depth=files[0].read_bytes()), several[0], rtol=1e-5)
    assert model.similarity(depth=files, image=[folder / "0.png"]).shape == (3, 1)
    with pytest.raises(UserError, match=r"depth 5\.npy: no array"):
        model.embed(depth=folder / "5.npy")
    with pytest.raises(UserError, match=r"depth is an array \[64\]; it takes an array \[8, 8, 1\], a file na"):
        model.embed(depth=arrays[0].reshape(64))
    with pytest.raises(UserError, match=r"did you mean depth\?"):
        model.embed(depht=arrays)


def test_it_is_judged_again_where_its_file_is_named(rooms, tmp_path, capsys):
    file, workdir = rooms
    command = ["evaluate", str(workdir), "--json", str(tmp_path / "found.json")]
    assert main(command) == 2
    assert "code of one's own, which runs only where you name its file" in capsys.readouterr().err
    assert main([*command, "--code", str(file)]) == 0
    told = json.loads((tmp_path / "found.json").read_text())["validation"]
    last = logged(workdir)[4]
    assert told["spread/depth"] == pytest.approx(last["spread/depth"], rel=1e-5)


def test_a_split_is_embedded_and_so_is_a_table_of_the_same_columns(rooms, tmp_path):
    file, workdir = rooms
    table = str(file.parent / "rooms.csv")
    for name, data in (("own", None), ("table", table)):
        found = embedding_files.read(embed(str(workdir), data, tmp_path / name, split="validation", code=file))
        assert found.embeddings["depth"].shape == (8, 8)
        assert found.valid["depth"].all()
        assert "depth" not in found.columns
        assert len(set(found.contents["depth"])) == 8
