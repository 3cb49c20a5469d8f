"""Names of hubs, against a hub on this machine: what is fetched, what is kept, and what is done without a network."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import hub, projects
from mmjax.interop.hf import layout as hf_layout
from mmjax.interop.hub import fetched, is_name, near, parsed
from mmjax.interop.projects import Project
from mmjax.interop.resolve import resolve
from tests.interop.hub_stand_in import Hub, serving
from tests.interop.small import clip, hf_folder, open_clip_folder, sentences_folder

pytest.importorskip("huggingface_hub")

FIRST, SECOND, THIRD = "a" * 40, "b" * 40, "c" * 40
NEEDED = ["config.json", "model.safetensors", "preprocessor_config.json"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two states of a repository of Hugging Face's, with all that one holds, and one of open_clip's."""
    root = tmp_path_factory.mktemp("hub")
    found = {FIRST: hf_folder(root / "first", 1), SECOND: hf_folder(root / "second", 2)}
    for folder in found.values():
        for name in ("pytorch_model.bin", "modeling_clip.py", "README.md", "tf_model.h5", "onnx/model.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"not to be fetched")
    found[THIRD] = open_clip_folder(root / "third", 3)
    (found[THIRD] / "open_clip_pytorch_model.bin").write_bytes(b"not to be fetched")
    return found


@pytest.fixture
def served(folders, tmp_path, monkeypatch):
    stand_in = Hub()
    stand_in.add("org/clip", FIRST, folders[FIRST], "main", "v1")
    stand_in.add("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", THIRD, folders[THIRD], "main")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(stand_in) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield stand_in


def quiet(text: str) -> None:
    pass


def same(bundle, seed):
    jax.tree.map(np.testing.assert_array_equal, bundle.variables, clip(seed).variables)


def test_a_name_is_fetched_once_and_pinned(served, folders):
    said = []
    bundle = fetched("hf:org/clip", said.append)
    same(bundle, 1)
    assert bundle.source == f"hf:org/clip@{FIRST}"
    assert said == [f"hf:org/clip is commit {FIRST}; hf:org/clip@{FIRST} names it for good"]
    assert sorted(served.fetched()) == NEEDED  # no .bin, no .py
    served.add("org/clip", SECOND, folders[SECOND], "main")  # the repository moves on
    served.asked.clear()
    said.clear()
    same(fetched("hf:org/clip", said.append), 1)
    assert not served.asked
    assert not said


def test_a_model_of_sentence_transformers_comes_with_its_modules(served, tmp_path):
    pytest.importorskip("tokenizers")
    folder = sentences_folder(tmp_path / "it", 4)
    needed = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors"} <= set(needed)
    for name in ("pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/config.json", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be fetched")
    served.add("sentence-transformers/tiny", FIRST, folder, "main")
    bundle = resolve("hf:sentence-transformers/tiny", say=quiet)
    jax.tree.map(np.testing.assert_array_equal, bundle.variables, resolve(folder).variables)
    assert bundle.config == resolve(folder).config
    assert build(bundle.config.towers["text"]).pooling == "mean"
    fetches = [line.partition("/resolve/")[2] for line in served.asked if line.startswith("GET")]
    assert sorted(line.partition("/")[2] for line in fetches if line) == needed
    served.asked.clear()
    again = resolve("hf:sentence-transformers/tiny", say=quiet)
    assert not served.asked
    assert (build(again.config), again.tokenizers) == (build(bundle.config), bundle.tokenizers)
    assert again.extras.keys() == bundle.extras.keys() == {"pooler.dense.weight", "pooler.dense.bias"}


def test_what_is_said_of_a_fetched_model_names_it_and_not_where_it_was_put(served, folders, tmp_path):
    folder, exact = tmp_path / "other", f"hf:org/other@{SECOND}"
    shutil.copytree(folders[FIRST], folder)
    arrays = load_file(folder / "model.safetensors")
    save_file({f"module.{name}": array for name, array in arrays.items()}, folder / "model.safetensors")
    served.add("org/other", SECOND, folder)
    said = []
    same(fetched(exact, said.append), 1)
    assert said == [f"{exact}: its arrays are read without 'module.' in their names"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip2"}))
    served.add("org/naflex", THIRD, folder)
    with pytest.raises(UserError, match=rf"^hf:org/naflex@{THIRD}: model_type='siglip2' is SigLIP 2 .* isn't here"):
        fetched(f"hf:org/naflex@{THIRD}", quiet)


def test_a_branch_is_asked_for_and_a_commit_is_not(served, folders):
    same(fetched("hf:org/clip", quiet), 1)
    served.add("org/clip", SECOND, folders[SECOND], "main")
    same(fetched("hf:org/clip@main", quiet), 2)
    same(fetched("hf:org/clip@v1", quiet), 1)
    same(fetched("hf:org/clip", quiet), 1)  # stays what it was
    served.asked.clear()
    same(fetched(f"hf:org/clip@{SECOND}", quiet), 2)
    same(resolve(f"hf:org/clip@{FIRST}"), 1)
    assert not served.asked


def test_without_a_network_the_cache_serves(served, monkeypatch):
    fetched("hf:org/clip@main", quiet)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    said = []
    same(fetched("hf:org/clip@main", said.append), 1)
    assert len(said) == 1
    assert said[0].startswith("the hub can't be reached")
    assert said[0].endswith(f"hf:org/clip@main is taken as it was last seen: {FIRST}")
    with pytest.raises(UserError, match=r"hf:org/other isn't in .*models, and the hub can't be reached"):
        fetched("hf:org/other", quiet)


def test_what_is_damaged_in_the_cache_is_fetched_again(served):
    fetched("hf:org/clip", quiet)
    (file,) = hub.cache().rglob("params.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    said = []
    same(fetched("hf:org/clip", said.append), 1)
    assert said[0].endswith(f"hf:org/clip@{FIRST} is fetched again")
    assert bundles.is_bundle(file.parent)
    assert not [path for path in hub.cache().rglob(".*")]  # nothing half done is left


def test_open_clips_names_lead_to_their_repositories(served):
    bundle = fetched("open_clip:ViT-B-32/laion2b_s34b_b79k", quiet)
    same(bundle, 3)
    assert bundle.source == f"open_clip:ViT-B-32/laion2b_s34b_b79k@{THIRD}"
    assert "open_clip_model.safetensors" in served.fetched()
    assert "open_clip_pytorch_model.bin" not in served.fetched()
    same(fetched("hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", quiet), 3)  # whose layout it is, is seen
    with pytest.raises(UserError, match=r"did you mean ViT-B-32"):
        fetched("open_clip:ViT-B-23/laion2b_s34b_b79k", quiet)
    with pytest.raises(UserError, match=r"did you mean laion2b_s34b_b79k"):
        fetched("open_clip:ViT-B-32/laion2b_s34b_b97k", quiet)


def test_an_object_of_the_storage_is_pinned_by_its_generation(served, folders, tmp_path, monkeypatch):
    """The reader of .npz is another's test: here a file stands for a folder beside it."""
    files = {}
    for number, commit in (("7", FIRST), ("8", SECOND)):
        files[number] = tmp_path / f"{number}.npz"
        files[number].write_text(str(folders[commit]))
    monkeypatch.setitem(projects.PROJECTS, "bv", ByAddress("none", lambda path: False, "big_vision"))
    served.objects["bucket/siglip/b16.npz"] = {"7": files["7"]}
    bundle = fetched("bv:gs://bucket/siglip/b16.npz", quiet)
    same(bundle, 1)
    assert bundle.source == "bv:gs://bucket/siglip/b16.npz@7"
    served.objects["bucket/siglip/b16.npz"]["8"] = files["8"]
    same(fetched("bv:gs://bucket/siglip/b16.npz", quiet), 1)
    same(fetched("bv:gs://bucket/siglip/b16.npz@8", quiet), 2)
    with pytest.raises(UserError, match=r"no public object gs://bucket/siglip/b16.npz of generation 9"):
        fetched("bv:gs://bucket/siglip/b16.npz@9", quiet)
    with pytest.raises(UserError, match=r"a revision of an object is its generation, a number"):
        fetched("bv:gs://bucket/siglip/b16.npz@main", quiet)
    served.objects["bucket/other.npz"] = {"1": files["7"]}
    served.corrupt = True
    with pytest.raises(UserError, match=r"gs://bucket/other.npz didn't arrive whole"):
        fetched("bv:gs://bucket/other.npz", quiet)
    with pytest.raises(UserError, match=r"no public object gs://bucket/none.npz"):
        fetched("bv:gs://bucket/none.npz", quiet)


class ByAddress(Project):
    def read(self, path):
        return hf_layout.read(Path(path.read_text()))


def test_what_the_hub_lacks_is_said(served, folders, tmp_path):
    with pytest.raises(UserError, match=r"there is no model 'org/clap' on the hub, or it is private"):
        fetched("hf:org/clap", quiet)
    with pytest.raises(UserError, match=r"org/clip on the hub has no revision 'v2'"):
        fetched("hf:org/clip@v2", quiet)
    served.gated.add("org/terms")
    with pytest.raises(UserError, match=r"org/terms asks for agreement to its terms"):
        fetched("hf:org/terms", quiet)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    served.add("org/empty", FIRST, tmp_path / "empty", "main")
    with pytest.raises(UserError, match=r"org/empty on the hub holds no model that can be read: that takes config"):
        fetched("hf:org/empty", quiet)


def test_names_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert is_name("hf:org/name")
    assert is_name("bv:gs://bucket/file.npz")
    assert not is_name("runs/quickstart")
    assert not is_name("gs://bucket/run")
    assert parsed("hf:org/name@refs/pr/1").revision == "refs/pr/1"
    for wrong in ("hf:name", "hf:org/name/more", "bv:file.npz", "open_clip:ViT-B-32", "hf:org/..", "hf:org/name@"):
        with pytest.raises(UserError, match=f"is no name of a model: one is written {wrong.partition(':')[0]}:"):
            parsed(wrong)
    (tmp_path / "mmjax" / "models" / "hf" / "google--siglip").mkdir(parents=True)
    assert near("google/siglib") == "; did you mean hf:google/siglip?"
    assert near("org/name") == "; did you mean hf:org/name?"
    assert not near("somewhere")


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install "mmjax\[interop\]"'):
        fetched("hf:org/name", quiet)
