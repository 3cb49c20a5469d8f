"""Features on the devices: each row where it belongs, read in pieces, and what can't be clustered."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.clustering import points as module
from mmjax.inference.clustering.points import check_finite, look_through, place
from mmjax.runtime.mesh import Mesh


class Watched:
    """An array that notes how many rows are read at once."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(data=2, fsdp=2, tensor=2)])
def test_rows_lie_over_the_mesh_and_are_read_in_pieces(mesh: Mesh, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 4 * 3 * 10)  # ten rows
    features = np.random.default_rng(0).normal(size=(157, 3)).astype(np.float32)
    features[[5, 100]] = np.nan
    watched = Watched(features)
    facts = look_through(watched)
    found = place(watched, facts, mesh.build(), 4)
    assert watched.most == 10
    rows, there = np.asarray(found.rows), np.asarray(found.features)
    real = np.setdiff1d(np.arange(157), [5, 100])
    np.testing.assert_array_equal(rows[real], real)
    np.testing.assert_array_equal(there[real], features[real])
    assert (np.delete(rows, real) == -1).all()
    assert not np.delete(there, real, axis=0).any()
    parts = mesh.sizes(8)[0] * mesh.sizes(8)[1]
    assert {shard.data.shape[0] for shard in found.features.addressable_shards} == {len(rows) // parts}
    assert len(rows) // parts % found.block == 0


def test_facts_of_features(tmp_path: Path):
    features = np.array([[1.0, 0.0, 3e-5], [-2.0, 0.0, 1e-5], [np.nan, 0.0, 0.0], [0.5, 0.0, np.inf]], np.float32)
    facts = look_through(features)
    assert (facts.count, facts.width, facts.bad.tolist()) == (4, 3, [2, 3])
    assert facts.shifts.tolist()[:2] == [module.DIGITS - 2, 0]  # 2 is 2**1, and below 2**2
    assert 2.0**29 <= 3e-5 * 2.0 ** facts.shifts[2] < 2.0**30
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert look_through(mapped).digest == facts.digest
    other = features.copy()
    other[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    assert look_through(other).digest != facts.digest
    assert look_through(features.reshape(3, 4)).digest != facts.digest


def test_the_block_depends_on_the_features_alone():
    features = np.zeros((1000, 2), np.float32)
    facts = look_through(features)
    blocks = {place(features, facts, Mesh().build(jax.devices()[:n]), 4).block for n in (1, 2, 8)}
    assert len(blocks) == 1


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((3, 4, 5), np.float32), r"these are float32\[3, 4, 5\]: reshape them, one row for each clip"),
        (np.zeros((3, 4), np.int32), r"these are int32\[3, 4\]"),
        (np.zeros((0, 4), np.float32), r"these are float32\[0, 4\]"),
        (np.zeros(4, np.float32), r"these are float32\[4\]"),
        (np.full((4, 2), 1e13, np.float32), "largest of the features' numbers is 1e\\+13"),
        (np.full((4, 2), 1e-13, np.float32), "numbers is 1e-13, and squares of such numbers leave float32"),
    ],
)
def test_what_are_no_features_is_refused(features: np.ndarray, message: str):
    with pytest.raises(UserError, match=message):
        look_through(features)


def test_rows_that_are_not_finite_are_counted_and_named():
    features = np.zeros((9, 2), np.float32)
    features[2:, 0] = np.nan
    facts = look_through(features)
    with pytest.raises(UserError, match=r"7 of 9 features hold .* rows 2, 3, 4, 5, 6, \.\.\.: mend them, or leave"):
        check_finite(facts, leave_out=False)
    check_finite(facts, leave_out=True)
    with pytest.raises(UserError, match="all 9 features hold numbers that aren't finite"):
        check_finite(look_through(np.full((9, 2), np.inf, np.float32)), leave_out=True)
