"""A kind of storage and an optimiser of one's own, in the experiment's file alone: it trains, resumes, is judged and
embedded, and what it reads is compared and told as a table is."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.data import Folder, Mixture, embedding_files
from mmjax.data.pipeline import prepare
from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from mmjax.inference.embed_dataset import embed
from mmjax.train.loop import train
from tests.tiny import COLOURS, SHAPES, draw

HERE = Path(__file__).parent
WORDS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def write_archive(file: Path, words: list[str]) -> None:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        for split, few in (("train", words), ("validation", words[:8]), ("test", words[:6])):
            for word in few:
                picture, (_, colour, shape) = io.BytesIO(), word.split()
                draw(COLOURS.index(colour), SHAPES.index(shape), rng).save(picture, "png")
                archive.writestr(f"{split}/{word}.png", picture.getvalue())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """The experiment's file, and a workdir of its run."""
    folder, workdir = tmp_path_factory.mktemp("zipped"), tmp_path_factory.mktemp("runs") / "zipped"
    write_archive(folder / "shapes.zip", WORDS)
    text = (HERE / "zipped.py").read_text().replace("ARCHIVE", str(folder / "shapes.zip"))
    (folder / "zipped.py").write_text(text)
    train(load_experiment(f"{folder}/zipped.py"), workdir)
    return folder / "zipped.py", workdir


def test_the_optimiser_moves_each_parameter_by_the_learning_rate(run):
    before, after = (mmjax.load(run[1], step=step, code=run[0]).params for step in (2, 3))
    far = jax.tree.map(lambda a, b: np.abs(b - a), before, after)
    tower = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(far["towers_image"])])
    assert np.all((tower < 1e-9) | (np.abs(tower - 1e-3) < 1e-6))
    assert np.mean(tower > 0) > 0.8
    assert not any(leaf.any() for leaf in jax.tree.leaves(far["towers_text"]))  # frozen, by the base's own field


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(run, tmp_path):
    file, workdir = run
    shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "3")
    train(load_experiment(f"{file}"), tmp_path / "copy")
    first, again = (mmjax.load(path, code=file).params for path in (workdir, tmp_path / "copy"))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_a_run_is_told_that_the_archive_is_another(run, tmp_path):
    file, workdir = run
    shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "3")
    (tmp_path / "other").mkdir()
    write_archive(tmp_path / "other" / "shapes.zip", WORDS[1:])
    kept = (file.parent / "shapes.zip").read_bytes()
    shutil.copyfile(tmp_path / "other" / "shapes.zip", file.parent / "shapes.zip")
    try:
        with pytest.raises(UserError, match=r"shapes: rows 24 there, 23 here, names train/"):
            train(load_experiment(f"{file}"), tmp_path / "copy")
    finally:
        (file.parent / "shapes.zip").write_bytes(kept)


def test_it_is_judged_and_embedded_and_says_where_its_data_is(run, tmp_path, capsys):
    file, workdir = run
    record = json.loads((workdir / "experiment.json").read_text())["experiment"]
    assert record["data"]["sources"]["shapes"]["@call"] == "zipped.py:Zipped"
    assert record["optimizer"]["@call"] == "zipped.py:Sign"
    found = tmp_path / "found.json"
    assert main(["evaluate", str(workdir), "--code", str(file), "--json", str(found)]) == 0
    assert f"{workdir} names its data: {file.parent / 'shapes.zip'}" in "".join(capsys.readouterr().out.split("\n"))
    assert json.loads(found.read_text())["validation"]["retrieval/image->text/queries"] == 8
    embedded = embedding_files.read(embed(str(workdir), None, tmp_path / "vectors", split="test", code=file))
    assert embedded.columns["text"] == sorted(WORDS[:6])
    assert embedded.valid["image"].all()


def test_what_is_no_source_or_opens_no_records_is_refused():
    class Bare:
        def open(self, split, data_dir=None):
            raise AssertionError

    class Listed(Folder):
        def open(self, split, data_dir=None):  # pyright: ignore[reportIncompatibleMethodOverride]
            return [{"id": "a", "text": "b"}]

    refusals = (
        (Bare(), r"Bare\(...\)}\) is no source: its class must be a mmjax\.data\.Source"),
        (Listed("t.csv"), r"Listed\(...\)}\): its open\(\) must give mmjax\.data\.Records"),
    )
    for source, told in refusals:
        with pytest.raises(UserError, match=rf"^Mixture\(sources={{'own': {told}"):
            prepare(Mixture({"own": 1.0}, {}, {"own": source})).open("test")
