"""A run that is killed, damaged and moved at random ends as the one that wasn't; the record of an hour: records/."""

import pytest

from tests.faults.soak import soak, soak_resized


def test_some_faults_change_not_a_bit(tmp_path):
    found = soak(tmp_path, minutes=0.4, steps=40, save_every=5, seed=1)
    assert found["faults"] >= 1  # each came after at least one new step; on a free machine there are two or three


@pytest.mark.slow  # experiments/records/soak_resize.json has its numbers; other meshes go on in tests/multiprocess too
def test_half_a_minute_of_faults_and_other_machines_changes_no_example_and_no_loss(tmp_path):
    found = soak_resized(tmp_path, minutes=0.6, steps=24, seed=2)
    assert found["faults"] >= 1
    assert found["largest_relative_difference_of_losses"] <= 1e-5
