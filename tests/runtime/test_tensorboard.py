"""Event files are written where they are asked for: what the disk refuses is an error there, and nowhere else."""

import errno
import gc
import os
import threading
from pathlib import Path

import pytest
from tensorboardX import record_writer

from mmjax.runtime.tensorboard import FileWriter, Summary


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_an_error_where_it_is_written_and_no_thread_tells_of_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    before = threading.active_count()
    writer = FileWriter(str(tmp_path / "tensorboard" / "train"), ".7")
    assert (tmp_path / "tensorboard" / "train").is_dir()
    assert threading.active_count() == before
    for step in range(30):  # more than a queue would hold
        writer.add_summary(Summary(value=[Summary.Value(tag="loss", simple_value=0.5)]), step)
    for end in (writer.flush, writer.close):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            end()
    del writer, end
    gc.collect()
    assert capfd.readouterr() == ("", "")
