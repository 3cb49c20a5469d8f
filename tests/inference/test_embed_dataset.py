"""`mmjax embed`: the numbers of the model, in files that come out the same however often it was killed."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fiddle as fdl
import numpy as np
import pytest
from PIL import Image

from mmjax import embeddings
from mmjax.cli.main import main
from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Mixture
from mmjax.data.sources.folder import Folder
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.image import Decode
from mmjax.data.transforms.record import CopyInput
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from mmjax.evaluate.benchmarks import benchmark
from mmjax.evaluate.split_embedder import SplitEmbedder
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.inference import embed_dataset as module
from mmjax.inference.embed_dataset import chosen, embed
from mmjax.interop.bundle import stand_in
from mmjax.interop.resolve import resolve
from mmjax.runtime.checkpoints import restore_variables
from mmjax.runtime.files import output
from mmjax.runtime.mesh import Mesh
from tests.trained import Trained, tiny_config


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory) -> Path:
    """The run's 24 test examples in shards of 10, by the command."""
    out = tmp_path_factory.mktemp("embeddings") / "test"
    assert main(["embed", str(trained.workdir), "--out", str(out), "--rows", "10", "--batch-size", "8"]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_numbers_are_those_of_an_evaluation(trained: Trained, folder: Path):
    experiment = build(tiny_config(trained.table))
    data = prepared(experiment.data, trained.workdir)
    embedder = SplitEmbedder(experiment.pretrainer(), data, Mesh().build(), 16)
    expected = embedder.split(restore_variables(trained.workdir), "test")
    found = embeddings.read(folder)
    assert found.columns == expected.columns
    for modality, vectors in expected.embeddings.items():
        np.testing.assert_array_equal(found.valid[modality], expected.valid[modality])
        real = expected.valid[modality]
        np.testing.assert_allclose(found.embeddings[modality][real], vectors[real], atol=1e-6)
    told = embeddings.manifest(folder)
    assert (told["count"], told["rows"], told["shards"]) == (24, 10, 3)
    assert told["modalities"] == {"image": 16, "text": 16, "audio": 16}
    assert (told["model"]["source"], told["model"]["step"]) == (str(trained.workdir), 24)
    assert [len(part) for part in embeddings.shards(folder)] == [10, 10, 4]


@pytest.mark.parametrize("killed", ["before a shard's vectors", "after a shard"])
def test_killed_anywhere_it_ends_with_the_same_files(trained: Trained, folder: Path, tmp_path, monkeypatch, killed):
    out, real = tmp_path / "again", output.write

    def write(path, content):
        if killed == "before a shard's vectors" and path.name == "embeddings-00001-of-00003.safetensors":
            path.with_name(f".{path.name}.9.tmp").write_bytes(content[:50])
            raise KeyboardInterrupt
        if killed == "after a shard" and path.name.startswith("embeddings-00002"):
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(output, "write", write)
    with pytest.raises(KeyboardInterrupt):
        embed(str(trained.workdir), None, out, rows=10, batch_size=8)
    with pytest.raises(UserError, match="is not complete"):
        embeddings.read(out)
    monkeypatch.setattr(output, "write", real)
    made = []
    monkeypatch.setattr(
        embeddings, "write_shard", lambda *given, shard=embeddings.write_shard: (made.append(given[1]), shard(*given))
    )
    embed(str(trained.workdir), None, out, rows=999, batch_size=8)  # a folder that was begun keeps its own
    assert contents(out) == contents(folder)
    assert made == [f"embeddings-0000{i}-of-00003" for i in ((1, 2) if "before" in killed else (2,))]


def test_a_complete_folder_is_left_as_it_is(trained: Trained, folder: Path, monkeypatch):
    monkeypatch.setattr(embeddings, "write_shard", None)
    before = contents(folder)
    embed(str(trained.workdir), None, folder, rows=10, batch_size=8)
    assert contents(folder) == before


def test_another_model_or_other_data_are_refused(trained: Trained, folder: Path, tmp_path):
    with pytest.raises(
        UserError, match=r"by other model: .* \(step 24\) there, .* \(step 8\) here; give another --out"
    ):
        embed(str(trained.workdir), None, folder, step=8)
    with pytest.raises(
        UserError, match=r"by other data: shapes \(split test\) there, shapes \(split validation\) here"
    ):
        embed(str(trained.workdir), None, folder, split="validation")
    with pytest.raises(UserError, match="examples of image, text, audio, and here are 24 of text: give another"):
        embed(str(trained.workdir), None, folder, modalities=["text"])
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="holds no embeddings: give another --out"):
        embed(str(trained.workdir), None, tmp_path)


def test_a_shard_that_changed_is_noticed(trained: Trained, folder: Path, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(folder, out)
    victim = out / "embeddings-00000-of-00003.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(UserError, match="embeddings-00000-of-00003 has changed since it was written"):
        embed(str(trained.workdir), None, out)


def test_ones_own_table_gives_what_it_has(trained: Trained, tmp_path):
    """A table of captions alone, one of them missing."""
    table = tmp_path / "captions.csv"
    table.write_text("text,mood,split\na red disc,calm,test\n,none,test\na blue cross,wild,test\nsomething,x,train\n")
    out = embed(str(trained.workdir), str(table), tmp_path / "out")
    found = embeddings.read(out)
    assert list(found.embeddings) == ["text"]
    assert found.valid["text"].tolist() == [True, False, True, True]  # all rows, whatever their split
    assert found.columns["mood"] == ["calm", "none", "wild", "x"]
    assert embeddings.manifest(out)["data"]["split"] == "all"
    part = embed(str(trained.workdir), str(table), tmp_path / "test", split="test")
    assert embeddings.read(part).columns["mood"] == ["calm", "none", "wild"]
    before = contents(out)
    table.write_text(table.read_text().replace("blue", "pink"))
    with pytest.raises(UserError, match=r"by other data: .*captions\.csv \(split all\), which has changed since; give"):
        embed(str(trained.workdir), str(table), out)
    assert contents(out) == before


def test_record_transforms_are_for_the_records_of_the_models_own_data(tmp_path):
    (tmp_path / "own.csv").write_text("image,text,split\na.png,a cat,test\n")
    (tmp_path / "a.png").touch()
    table, copy = str(tmp_path / "own.csv"), CopyInput("text", "caption_2")
    words: tuple[Transform, ...] = (Tokenize(Subwords(8), 4),)
    chains: dict[str, tuple[Transform, ...]] = {"text": words, "caption_2": words}
    own = Mixture({"own": 1.0}, chains, {"own": Folder(table)}, record_transforms=(copy,))
    towers = {"text": "text", "caption_2": "text"}
    pretrainer = SimpleNamespace(inputs=lambda: towers)
    experiment: Any = SimpleNamespace(data=own, towers={"text": None}, pretrainer=lambda: pretrainer)
    for named in (None, "own"):
        mixture = chosen(experiment, named, "test", None)
        assert (mixture.record_transforms, list(mixture.transforms)) == ((copy,), ["text", "caption_2"])
    mixture = chosen(experiment, table, "test", None)
    assert (mixture.record_transforms, list(mixture.transforms)) == ((), ["text"])

    def digest(*made: fdl.Config) -> str:
        config = stand_in({}, {}, {})
        config.data.record_transforms = made
        return module._data_digest(cast(Any, SimpleNamespace(config=config, tokenizers={})), mixture, None, "test")

    plain = digest()
    mixture = replace(mixture, record_transforms=(copy,))
    made = [digest(fdl.Config(CopyInput, of="text", to=to)) for to in ("caption_2", "caption_3")]
    assert len({plain, *made}) == 3


def test_pictures_of_ones_own_table_are_seen_upright(trained: Trained, tmp_path):
    experiment = build(resolve(trained.workdir).config)
    chain = experiment.data.transforms["image"]
    experiment.data.transforms["image"] = (replace(chain[0], upright=False), *chain[1:])
    (tmp_path / "own.csv").write_text("image,text,split\na.png,a cat,test\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert chosen(experiment, str(tmp_path / "own.csv"), "test", None).transforms["image"] == chain
    assert chosen(experiment, None, "test", None).transforms["image"][0] == Decode(upright=False)  # as it was trained
    assert benchmark(str(tmp_path / "own.csv"), experiment).data.transforms["image"] == chain
    assert benchmark("cifar100", experiment).data.transforms["image"][0] == Decode(upright=False)


def test_what_cannot_be_had_says_what_can(trained: Trained, tmp_path):
    with pytest.raises(UserError, match=r"--modalities 'imgae', .*did you mean image\?"):
        embed(str(trained.workdir), None, tmp_path / "out", modalities=["imgae"])
    (tmp_path / "labels.csv").write_text("mood,split\ncalm,test\n")
    with pytest.raises(UserError, match="has none of the columns image, text, audio and video, it has mood, split"):
        embed(str(trained.workdir), str(tmp_path / "labels.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert module.ROWS % module.BATCH == 0


def test_rows_of_a_split_are_those_of_all(trained: Trained):
    data = prepared(build(tiny_config(trained.table)).data, trained.workdir)
    ((whole, columns),) = evaluation_batches(data, "test", 24)
    parts = list(evaluation_batches(data, "test", 8, rows=range(5, 17)))
    assert [len(c["id"]) for _, c in parts] == [8, 4]
    assert [i for _, c in parts for i in c["id"]] == columns["id"][5:17]
    np.testing.assert_array_equal(np.concatenate([b["image"] for b, _ in parts])[:12], whole["image"][5:17])
    assert not parts[1][0]["text_valid"][4:].any()
