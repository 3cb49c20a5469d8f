"""What a run keeps beside its checkpoints, where several hosts should see it."""

from dataclasses import replace

import pytest

from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.errors import UserError
from mmjax.experiment import workdir
from mmjax.experiment.graph import build
from mmjax.runtime import hosts
from tests.data.vocabularies import write_clip
from tests.faults.spoil import flip
from tests.trained import Trained, tiny_config, without_copies


def test_a_host_that_sees_another_workdir_says_so(trained: Trained, tmp_path, monkeypatch):
    """What host 0 has written isn't here: the disk is this host's own."""
    monkeypatch.setattr(workdir, "PATIENCE", 0.2)
    monkeypatch.setattr(hosts, "first", lambda function: "what host 0 has written")
    with pytest.raises(UserError, match=r"isn't the one that host 0 writes to: give a --workdir on a disk that all"):
        workdir.record(tiny_config(trained.table), tmp_path)


def test_a_split_that_is_not_there_is_noticed_before_anything_is_read(trained: Trained, tmp_path):
    data = build(tiny_config(trained.table)).data
    workdir.prepared(data, tmp_path, ["train", "test"])
    with pytest.raises(SplitNotFoundError, match="tset"):
        workdir.prepared(data, tmp_path, ["train", "tset"])


def test_a_workdir_keeps_another_projects_tokenizer_and_takes_it_from_there(trained: Trained, tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    (folder := tmp_path / "clip").mkdir()
    spec = Subwords(1_000, path=str(write_clip(folder)))
    data = build(tiny_config(trained.table)).data
    data = replace(data, transforms={**data.transforms, "text": (PickCaption(), Tokenize(spec, 8, bos=True))})
    first = workdir.prepared(data, tmp_path / "run").chains
    assert (tmp_path / "run/tokenizers/text.json").read_bytes() == first.tokenizers["text"].model
    folder.rename(tmp_path / "gone")
    again = workdir.prepared(data, tmp_path / "run").chains
    assert again.tokenizers == first.tokenizers
    # Another host gets it as bytes, and makes the same of it.
    sent = hosts.decode(hosts.encode(workdir.to_files(first.tokenizers)))
    monkeypatch.setattr(hosts, "leads", lambda: False)
    monkeypatch.setattr(hosts, "first", lambda function: sent)
    other = workdir.prepared(data, tmp_path / "another disk").chains
    assert other.tokenizers == first.tokenizers
    assert (
        other.encode(text=["a grey square"])["text"].tolist() == first.encode(text=["a grey square"])["text"].tolist()
    )


def test_before_the_first_step_damage_is_no_obstacle(trained: Trained, tmp_path):
    config = tiny_config(trained.table)
    workdir.record(config, tmp_path)
    first = workdir.prepared(build(config).data, tmp_path).chains.tokenizers
    record, model = (tmp_path / name for name in ("experiment.json", "tokenizers/text.model"))
    whole = record.read_bytes(), model.read_bytes()
    record.write_bytes(whole[0][:-30])
    flip(model)
    workdir.record(config, tmp_path)
    assert workdir.prepared(build(config).data, tmp_path).chains.tokenizers == first
    assert (record.read_bytes(), model.read_bytes()) == whole


def test_of_a_run_that_has_begun_a_damaged_record_is_named(trained_copy: Trained):
    without_copies(trained_copy.workdir)
    (record := trained_copy.workdir / "experiment.json").write_text("{")
    with pytest.raises(UserError, match=rf"^{record}: this is no experiment\.json"):
        workdir.record(tiny_config(trained_copy.table), trained_copy.workdir)
    assert record.read_text() == "{"
