import errno
import multiprocessing
import os
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from mmjax.data.workers import parcels
from mmjax.data.workers.parcels import Mailbox, Pack, Parcel, unpacked

BATCH = {
    "image": np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5),
    "audio": np.array([[-7, 8], [9, -32768]], np.int16),
    "text_mask": np.array([[True, False], [False, True]]),
    "id": np.array([[2**32 - 1, 0], [1, 2]], np.uint32),
    "empty": np.zeros((2, 0), np.float32),
}


def names(mailbox: Mailbox) -> list[str]:
    return [path.name for path in parcels.FOLDER.glob(f"{mailbox.address.text}-*")]


def test_a_batch_comes_out_as_it_went_in_and_its_memory_is_gone():
    mailbox = Mailbox()
    parcel = Pack(mailbox.address)(BATCH)
    assert isinstance(parcel, Parcel)
    assert names(mailbox) == [parcel.name]
    taken = unpacked(parcel)
    assert names(mailbox) == []
    assert list(taken) == list(BATCH)
    for name, array in BATCH.items():
        assert taken[name].dtype == array.dtype
        np.testing.assert_array_equal(taken[name], array)
    with pytest.raises(FileNotFoundError):
        unpacked(parcel)
    mailbox.close()
    assert not mailbox.address.lock.exists()


def test_what_nobody_took_goes_when_the_mailbox_is_closed():
    mailbox, other = Mailbox(), Mailbox()
    pack, kept = Pack(mailbox.address), Pack(other.address)(BATCH)
    for _ in range(2):
        pack(BATCH)
    assert len(names(mailbox)) == 2
    mailbox.close()
    mailbox.close()
    assert names(mailbox) == []
    assert names(other)
    unpacked(kept)
    other.close()


def test_what_a_sender_had_made_but_given_no_size_when_it_was_killed_is_removed_too():
    address = parcels.Address(f"{parcels.PREFIX}{'0' * 16}")
    empty = parcels.FOLDER / f"{address.text}-1-1"  # between shm_open and ftruncate a file is empty, and maps nowhere
    empty.touch()
    address.lock.touch()
    Mailbox().close()
    assert not empty.exists()
    assert not address.lock.exists()


def test_without_space_or_without_shared_memory_the_batch_goes_as_it_is(monkeypatch, tmp_path):
    mailbox = Mailbox()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)  # writing into what isn't there would be a SIGBUS
        assert Pack(mailbox.address)(BATCH) is BATCH
    assert names(mailbox) == []
    assert unpacked(BATCH) is BATCH
    mailbox.close()
    monkeypatch.setattr(parcels, "FOLDER", tmp_path / "nothing")
    without = Mailbox()
    assert Pack(without.address)(BATCH) is BATCH
    without.close()


def test_the_memory_is_the_only_one_of_its_name_and_known_to_nobody_afterwards():
    """Else Python's tracker, at its end, tells of memory that leaked."""
    mailbox = Mailbox()
    Pack(mailbox.address)(BATCH)
    (name,) = names(mailbox)
    with pytest.raises(FileExistsError):
        SharedMemory(name, create=True, size=1)
    mailbox.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
