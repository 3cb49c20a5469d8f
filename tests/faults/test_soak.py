"""A run that is killed and damaged at random ends as the one that wasn't; the record of an hour is in experiments/."""

from tests.faults.soak import soak


def test_half_a_minute_of_faults_changes_nothing(tmp_path):
    found = soak(tmp_path, minutes=0.6, steps=100, save_every=10, seed=1)
    assert found["faults"] >= 1  # each came after at least one new step; on a free machine there are three or four
