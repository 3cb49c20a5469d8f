"""What a run keeps beside its checkpoints, where several hosts should see it."""

import pytest

from mmjax import hosts, workdir
from mmjax.data.sources import SplitNotFoundError
from mmjax.errors import UserError
from mmjax.experiment import build
from tests.trained import Trained, tiny_config


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
