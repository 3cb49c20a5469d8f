"""Whatever names a model: each kind of place gives its model, and what is none says what there is."""

import json
import shutil
from importlib import import_module

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from mmjax.errors import UserError
from mmjax.interop import bundle as bundles
from mmjax.interop.resolve import resolve
from mmjax.runtime.checkpoints import Checkpointer, restore_variables
from tests.interop.small import clip, hf_folder, open_clip_folder
from tests.trained import Trained


def same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_workdir_gives_its_latest_checkpoint_or_the_one_asked_for(trained: Trained):
    bundle = resolve(trained.workdir)
    assert bundle.step == 24
    assert bundle.source == str(trained.workdir)
    assert bundle.tokenizers.keys() == {"text"}
    same(bundle.variables["params"], restore_variables(trained.workdir, 24)["params"])
    earlier = resolve(str(trained.workdir), step=8)
    assert earlier.step == 8
    same(earlier.variables["params"], restore_variables(trained.workdir, 8)["params"])
    assert resolve(trained.workdir / "experiment.json").step == 24
    with pytest.raises(UserError, match=r"no checkpoint of step 5 .*\[8, 16, 24\]"):
        resolve(trained.workdir, step=5)


def test_the_moving_average_and_other_collections_come_along(tmp_path):
    params = {"towers_image": {"kernel": np.ones((2, 2), np.float32)}}
    statistics = {"batch_stats": {"towers_image": {"mean": np.full(2, 3, np.float32)}}}
    state = {"step": np.int32(1), "params": params, "model_state": statistics}
    state["ema"] = jax.tree.map(lambda leaf: leaf / 2, params)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    same(restore_variables(tmp_path), {"params": params, **statistics})
    same(restore_variables(tmp_path, ema=True), {"params": state["ema"], **statistics})


def test_folders_of_every_layout(tmp_path):
    model = clip()
    for folder in (
        hf_folder(tmp_path / "hf"),
        open_clip_folder(tmp_path / "oc"),
        bundles.save(model, tmp_path / "own"),
    ):
        bundle = resolve(folder)
        same(bundle.variables, model.variables)
        assert bundle.source == str(folder)
        with pytest.raises(UserError, match=r"step=3: .* has no steps; a workdir of a run has"):
            resolve(folder, step=3)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """`gs://` is a folder of this machine."""
    from etils.epath import backend

    root = tmp_path / "storage"
    root.mkdir()

    class Storage(DirFileSystem):
        protocol = "gcs"

        def __init__(self, **options):
            super().__init__(str(root), LocalFileSystem())

        def _join(self, path):
            return super()._join(path.removeprefix("gs://") if isinstance(path, str) else path)

    fsspec.register_implementation("gcs", Storage, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setenv("EPATH_USE_TF", "false")
    yield root
    import_module("fsspec.registry")._registry.pop("gcs", None)
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_folders_in_a_bucket(bucket):
    model = clip()
    bundles.save(model, bucket / "models" / "own")
    hf_folder(bucket / "models" / "hf")
    for name in ("own", "hf"):
        bundle = resolve(f"gs://models/{name}")
        same(bundle.variables, model.variables)
        assert bundle.source == f"gs://models/{name}"
    with pytest.raises(UserError, match=r"there is no 'gs://models/onw'; did you mean own\?"):
        resolve("gs://models/onw")
    with pytest.raises(UserError, match=r"buckets are gs://"):
        resolve("ftp://models/own")


def test_what_is_no_model_says_what_is(tmp_path, monkeypatch, trained: Trained):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    shutil.copy(trained.workdir / "experiment.json", tmp_path / "runs" / "quickstart")
    (tmp_path / "notes.txt").touch()
    for name, message in {
        "runs/quickstrat": r"no 'runs/quickstrat'; did you mean quickstart\? A model is a workdir",
        "google/siglip": r"no 'google/siglip'; did you mean hf:google/siglip\?",
        "fh:google/siglip": r"no 'fh:google/siglip'; did you mean hf:\?",
        "runs": r"runs holds no model; in it there is quickstart\. A model is",
        "runs/quickstart": r"runs/quickstart has no checkpoint yet: mmjax train",
        "notes.txt": r"notes.txt is no model: a file must be .npz",
        "hf:siglip": r"is no name of a model: one is written hf:google/",
    }.items():
        with pytest.raises(UserError, match=message):
            resolve(name)


def test_another_versions_checkpoint_says_which(tmp_path, trained: Trained):
    shutil.copytree(trained.workdir, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    record["mmjax"] = "9.1.0"
    del record["blake2b"]
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(record))
    assert resolve(tmp_path / "run").step == 24  # another version is no fault in itself
    record["experiment"]["towers"]["image"]["@call"] = "models:ViT3"
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(record))
    wrote = r"\nmmjax 9.1.0 wrote it, and this is \S+: install that version"
    with pytest.raises(UserError, match=r"(?s)ViT3.*did you mean .*ViT.*" + wrote):
        resolve(tmp_path / "run")
    record["experiment"]["towers"]["image"]["@call"] = "models:ViT"
    record["experiment"]["towers"]["image"]["blocks"]["width"] = 48
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"(?s)towers_image.*and the model's is.*" + wrote):
        resolve(tmp_path / "run")
    own = bundles.save(clip(), tmp_path / "own")
    record = json.loads((own / "experiment.json").read_text())
    del record["blake2b"]
    text = json.dumps(record | {"mmjax": "9.1.0"})
    (own / "experiment.json").write_text(text.replace("models:ViT", "models:ViT3"))
    with pytest.raises(UserError, match=r"(?s)ViT3.*" + wrote):
        resolve(own)


def test_a_refusal_names_the_folder_whatever_file_of_it_is_refused(tmp_path):
    folder = hf_folder(tmp_path / "it")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["image_processor_type"] = "Siglip2ImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"^{folder}: preprocessor_config.json: image_processor_type='Siglip2Image"):
        resolve(folder)
