"""Each file's `tiny` trains: two steps of its towers, losses and chains, on shapes and beeps instead of its data.

On one device, as on a laptop, half the time of eight; meshes of real towers are in tests/train/test_step.py.
"""

import math
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest
from fiddle import daglish

from mmjax.data.sources.asked_scenes import AskedScenes
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.renamed import Renamed
from mmjax.data.sources.tfds import Tfds
from mmjax.data.tokenizers.word_tree import CentroidTree, Level, WordTree, tree_bytes
from mmjax.data.transforms.reserve.subsegments import CutSubsegments
from mmjax.experiment.load import load_experiment
from mmjax.runtime.mesh import Mesh
from mmjax.runtime.metrics import read
from mmjax.train.loop import train
from tests.benchmarks.sizes import FOLDER, experiments, files
from tests.tiny import write_shapes

TINY = [f"{file}:tiny" for file in files() if "tiny" in experiments(file)]
FIRST = {  # of which order the first loss is, of random towers: 8 candidates a batch, 512 or 1,024 words, 11 tags
    "clip.py": math.log(8),
    "flip.py": math.log(8),
    "clap.py": math.log(8),
    "imagebind.py": 2 * math.log(8),
    "siglip.py": 10 + 7 * math.log1p(math.exp(-10.0)),
    "bert.py": math.log(512) + math.log(2),
    "ner.py": math.log(11),
}
# Those that the suite trains: each kind of objective and tower. The others' steps are traced in test_files.py.
TRAINED = ("audiomae.py", "bert.py", "clip.py", "clip_resnet.py", "lit.py", "m3ae.py", "siglip.py")
BUILD = Mesh.build


def watched(config: Any) -> list[str]:
    """The datasets that an experiment reads."""
    return [*config.data.weights, *(node.name for node in nodes(config.data.sources, Tfds))]


def nodes(config: Any, kind: type) -> list[Any]:
    return [x for x, _ in daglish.iterate(config) if isinstance(x, fdl.Buildable) and fdl.get_callable(x) is kind]


def with_few_stories(config: Any, table: str, folder: Path) -> dict[str, Any]:
    """Sources of the videos that are built for tests, and of shapes for pictures; visual words by any tree."""
    for node in nodes(config.data.sources, Tfds):
        node.name = "emoji_stories/tiny"
    for step in nodes(config.data.record_transforms, CutSubsegments):
        step.seconds = 0.4  # these stories are short
    for tree in nodes(config.data.transforms, WordTree):
        tree.path = str(folder / "words.safetensors")
        random, sizes = np.random.default_rng(0), [tree.branching ** (level + 1) for level in range(tree.depth)]
        levels = [Level(random.random((n, 96), np.float32), np.ones(n, np.int32)) for n in sizes]
        Path(tree.path).write_bytes(tree_bytes(CentroidTree(tree.branching, tree.depth, tuple(levels), {})))
    given = dict(config.data.sources or {})
    stories = {name for name in config.data.weights if "stories" in name}
    others = set(config.data.weights) - stories - set(given)
    return given | dict.fromkeys(stories, Tfds("emoji_stories/tiny")) | dict.fromkeys(others, Folder(table))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[] if x.startswith(TRAINED) else [pytest.mark.slow]) for x in TINY]
)
def test_it_trains(name, table, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))  # where tokenizers go
    monkeypatch.setattr(Mesh, "build", lambda mesh, devices: BUILD(mesh, jax.devices()[:1]))
    config = load_experiment(f"{FOLDER}/{name}", ["steps=2", "batch_size=8", "optimizer.warmup_steps=1", "log_every=1"])
    config.evaluators, config.init, config.data.cache = [], {}, False
    if name.startswith("ner.py"):  # whose words have tags
        config.data.sources = {source: Tfds(f"{source}/tiny") for source in config.data.weights}
    elif name.startswith("vqa.py"):
        scenes = AskedScenes(Tfds("asked_emoji/tiny"), count=1_000, limit=6)
        config.data.sources = {source: Renamed(scenes, {"text": "question"}) for source in config.data.weights}
    elif name.startswith("dialogue.py"):
        for node in nodes(config.data.sources, Tfds):
            node.name = "described_emoji/tiny"
    elif any("stories" in text for text in watched(config)):
        config.data.sources = with_few_stories(config, table, tmp_path)
    elif not name.startswith("bert.py"):  # whose data is names, which a package has
        config.data.sources = {source: Folder(table) for source in config.data.weights}
    state = train(config, tmp_path / "run")
    assert int(state.step) == 2
    losses = [line["loss"] for line in read(tmp_path / "run") if "loss" in line]
    assert np.isfinite(losses).all()
    assert read(tmp_path / "run")[-1]["guard/skipped"] == 0
    near = FIRST.get(name.partition(":")[0])
    if near is not None:
        assert 0.5 < losses[0] / near < 2
