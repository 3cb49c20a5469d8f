"""`mmjax cluster`: of vectors, of the output of `mmjax embed`, of an experiment's own chain; and its run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mmjax import embeddings
from mmjax.cli.main import main
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.data.tokenizers.word_tree import CentroidTree, TreeTokenizer, tree_bytes
from mmjax.errors import UserError
from mmjax.experiment.confined import Record
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.experiment.workdir import prepared
from mmjax.inference.clustering import cluster as module
from mmjax.inference.clustering import collected
from mmjax.inference.clustering.cluster import cluster, summary_lines
from mmjax.inference.clustering.fit import fit_tree
from tests.data.decoding.clips import Clip
from tests.data.tokenizers.test_word_tree import grown

VIDEOS = 10
EXPERIMENT = '''"""Words of videos, and captions."""

from mmjax.data import (
    DecodeVideo, Mixture, PooledPixels, Resize, EachFrame, SentencePiece, Tokenize, VideoFolder, VisualWords, WordTree
)
from mmjax.experiment import Experiment, experiment
from mmjax.models import Blocks, TextTransformer
from mmjax.objectives import Contrastive
from mmjax.optim import AdamW


@experiment
def words() -> Experiment:
    size = dict(width=16, depth=1, heads=2, remat=None)
    return Experiment(
        towers={
            "video": TextTransformer(vocab=4, length=3, blocks=Blocks(**size), embed_dim=8),
            "text": TextTransformer(vocab=64, length=8, blocks=Blocks(**size), embed_dim=8),
        },
        objectives={"pair": Contrastive(("video", "text"))},
        data=Mixture(
            {"own": 1.0},
            sources={"own": VideoFolder("FOLDER", shares={"train": 1.0})},
            transforms={
                "video": (
                    DecodeVideo(6, jitter=False),
                    EachFrame((Resize(16),)),
                    PooledPixels(grid=2, frames=2),
                    VisualWords(WordTree("TREE", branching=2, depth=2)),
                ),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=8,
        steps=2,
    )
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with videos, one of which is none, and an experiment of them."""
    home = tmp_path_factory.mktemp("home")
    (home / "videos").mkdir()
    for number in range(VIDEOS):
        random = np.random.default_rng(number)
        colours = random.integers(0, 256, (2, 3)).astype(np.uint8)

        def picture(frame: int, width: int, height: int, colours: np.ndarray = colours) -> np.ndarray:
            return np.broadcast_to(colours[frame // 6], (height, width, 3)).copy()

        (home / "videos" / f"{number}.mp4").write_bytes(Clip(frames=12, size=(32, 32), picture=picture).made())
        (home / "videos" / f"{number}.txt").write_text(f"this is the film number {number}, of few words")
    (home / "videos" / "broken.mp4").write_bytes(b"nothing at all")
    text = EXPERIMENT.replace("FOLDER", str(home / "videos")).replace("TREE", str(home / "words.safetensors"))
    (home / "own.py").write_text(text)
    return home


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "features.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32))
    return path


def quiet() -> Console:
    return Console(quiet=True)


def test_of_vectors_by_the_command(vectors: Path, tmp_path: Path, capsys):
    out = tmp_path / "words.safetensors"
    command = ["cluster", str(vectors), "--out", str(out), "--branching", "2", "--depth", "2", "--seed", "3"]
    assert main([*command, "--iterations", "50"]) == 0
    said = capsys.readouterr().out
    expected = fit_tree(np.load(vectors), branching=2, depth=2, seed=3, iterations=50)
    assert out.read_bytes() == tree_bytes(expected)
    for line in (f"40 features of 24 numbers from {vectors}", *summary_lines(expected), f"the tree is in {out}"):
        assert line in said.splitlines()
    assert "level 2  iteration 0  inertia " in said
    assert [path.name for path in tmp_path.iterdir()] == ["words.safetensors"]  # the vectors aren't copied
    assert main([*command, "--iterations", "51"]) == 2
    assert "holds the tree of another fit: iterations 50 there, 51 here" in capsys.readouterr().err


def test_the_end_of_a_fit_in_words():
    tree = grown(3, 2, unused=0.0)
    counts = np.array([4, 0, 9, 1, 1, 2, 30, 7, 3], np.int32)
    levels = tree.levels[0]._replace(counts=np.array([13, 4, 40], np.int32)), tree.levels[1]._replace(counts=counts)
    about = {"features": 60, "left_out": 3, "inertia": [57.0, 5.7], "updates": [4, 2]}
    assert summary_lines(CentroidTree(3, 2, levels, about)) == [
        "3 features weren't finite, and were left out",
        "level 1  inertia 57, 1 a feature, 3 of 3 nodes used, 4 updates",
        "level 2  inertia 5.7, 0.1 a feature, 8 of 9 nodes used, 2 updates",
        "largest leaves: 6 (2.0) with 30, 2 (0.2) with 9, 7 (2.1) with 7",
        "smallest leaves: 4 (1.1) with 1, 3 (1.0) with 1, 5 (1.2) with 2",
    ]


def test_of_embeddings(tmp_path: Path, monkeypatch):
    """Of shards, the vectors of the examples that have the modality, in their order."""
    random = np.random.default_rng(0)
    shards = []
    for count in (10, 20):
        vector = {name: random.normal(size=(count, 24)).astype(np.float32) for name in ("image", "text")}
        there = {"image": random.random(count) < 0.7, "text": np.ones(count, bool)}
        shards.append(embeddings.Embeddings(vector, there, {}))
    manifest = {"modalities": {"image": 24, "text": 24}, "digests": {"a": "b"}}
    monkeypatch.setattr(collected.embedding_files, "manifest", lambda folder: manifest)
    monkeypatch.setattr(collected.embedding_files, "shards", lambda folder, names: iter(shards))
    (tmp_path / "embeddings.json").touch()
    out = tmp_path / "words.safetensors"
    tree = cluster(str(tmp_path), out, branching=2, depth=2, entry="image", console=quiet())
    rows = np.concatenate([shard.embeddings["image"][shard.valid["image"]] for shard in shards])
    assert 10 < len(rows) < 30
    assert tree_bytes(tree) == tree_bytes(fit_tree(rows, branching=2, depth=2))
    assert {path.name for path in tmp_path.iterdir()} == {"embeddings.json", "words.safetensors"}
    with pytest.raises(UserError, match="has embeddings of image, text: say which by --entry"):
        cluster(str(tmp_path), out, branching=2, depth=2, console=quiet())
    with pytest.raises(UserError, match=r"--entry 'imag', but the embeddings there are image, text; did you mean"):
        cluster(str(tmp_path), out, branching=2, depth=2, entry="imag", console=quiet())


def test_of_an_experiment_s_own_chain_and_the_run_that_reads_it(home: Path, capsys, tmp_path: Path):
    source, out = str(home / "own.py:words"), home / "words.safetensors"
    command = ["cluster", source, "--entry", "video", "--branching", "2", "--depth", "2", "--out", str(out)]
    assert main(command) == 0
    assert f"{VIDEOS} of {VIDEOS + 1} examples of train have features" in capsys.readouterr().out
    assert not list(home.glob("*.npy"))
    tree = TreeTokenizer(out.read_bytes())
    assert (tree.tree.about["features"], tree.width) == (VIDEOS * 3, 24)
    # A run's words are those of the tree, whose copy it keeps ...
    experiment = build(load_experiment(source))
    data = prepared(experiment.data, tmp_path / "run", ("train",))
    ((batch, _),) = evaluation_batches(data, "train", 16)
    assert load_tokenizers(tmp_path / "run" / "tokenizers")["video"] == tree
    words = batch["video"][: VIDEOS + 1][batch["video_valid"][: VIDEOS + 1]]
    assert words.shape == (VIDEOS, 3)
    np.testing.assert_array_equal(np.bincount(words.ravel(), minlength=4), tree.tree.levels[-1].counts)
    # ... and goes on with, whatever becomes of the file, as a model that is loaded does.
    kept = out.read_bytes()
    out.unlink()
    try:
        again = prepared(experiment.data, tmp_path / "run", ("train",))
        beside = prepared(experiment.data, None, ("train",), again.chains.tokenizers, Record("x", {}))
        for one in (again, beside):
            np.testing.assert_array_equal(next(evaluation_batches(one, "train", 16))[0]["video"], batch["video"])
        with pytest.raises(UserError, match=r"words\.safetensors'\): there is no such file; `mmjax cluster"):
            prepared(experiment.data, tmp_path / "new", ("train",))
        # A path in another's record is not read.
        out.write_bytes(kept)
        with pytest.raises(UserError, match=r"x has no tokenizer of 'video', and '.*', which its record names, isn't"):
            prepared(experiment.data, None, (), given=Record("x", {}))
    finally:
        out.write_bytes(kept)


def test_features_that_were_read_are_kept_until_the_tree_is_whole(home: Path, tmp_path: Path, monkeypatch):
    source, out = str(home / "own.py"), tmp_path / "words.safetensors"
    settings: dict[str, Any] = {"branching": 2, "depth": 2, "console": quiet()}

    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            cluster(source, out, **settings)
    (kept,) = tmp_path.iterdir()
    features = np.load(kept)
    assert (features.shape, features.dtype) == ((VIDEOS * 3, 24), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(collected, "evaluation_batches", killed)  # the videos aren't read again ...
        with pytest.raises(KeyboardInterrupt):
            cluster(source, out, **settings, examples=5)  # ... but for other features
        tree = cluster(source, out, **settings)
    assert tree_bytes(tree) == tree_bytes(fit_tree(features, branching=2, depth=2)) == out.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["words.safetensors"]


def test_some_examples_are_spread_over_the_split(home: Path, tmp_path: Path):
    """Of eleven in the order of their names, the broken one last: numbers 0, 2, 4, 6 and 8."""
    whole = cluster(str(home / "own.py"), tmp_path / "a.safetensors", branching=2, depth=1, console=quiet())
    some = cluster(str(home / "own.py"), tmp_path / "b.safetensors", branching=2, depth=1, examples=5, console=quiet())
    assert (whole.about["features"], some.about["features"]) == (30, 15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["VECTORS", "--entry", "video"], "--entry is for an experiment whose data is read, and .* holds vectors"),
        (["VECTORS", "--split", "test", "seed=1"], "--split, PATH=VALUE is for an experiment"),
        (["gone.npy"], "there is no file gone.npy"),
        (["TEXT"], r"text\.npy can't be read as an array"),
        (["VECTORS", "--depth", "25"], "mmjax cluster: branching=12 must be"),
        (["VECTORS", "--branching", "41"], "40 features are fewer than the 41 nodes of the first level"),
        (["EXPERIMENT", "--entry", "text"], "--entry 'text', but the entries with VisualWords are video"),
        (["EXPERIMENT", "data.sources.own.folder=nowhere"], "nowhere"),
        (["tests/tiny.py:pair"], r"tests/tiny.py:pair has no chain with VisualWords, whose features could be"),
    ],
)
def test_what_cannot_be_is_told(arguments: list[str], message: str, vectors: Path, home: Path, tmp_path: Path, capsys):
    (tmp_path / "text.npy").write_text("a letter")
    names = {"VECTORS": str(vectors), "TEXT": str(tmp_path / "text.npy"), "EXPERIMENT": str(home / "own.py")}
    out = tmp_path / "words.safetensors"
    assert main(["cluster", "--depth", "2", "--out", str(out), *(names.get(word, word) for word in arguments)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()
