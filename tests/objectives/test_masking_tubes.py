"""Tubes: the same places in every step, all as likely, whatever other examples there are; and VideoMAE's loss."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Decoder, TubeletViT, ViT
from mmjax.objectives import KeepTubes, MaskedVideo, Pretrainer
from mmjax.objectives.masked import normalised_patches
from mmjax.objectives.masking import Keep

GRID = (4, 3, 5)
KEY = jax.random.key(0)


def drawn(masking: KeepTubes, real: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
    index = np.arange(len(real), dtype=np.uint32) if index is None else index
    patch_mask = np.repeat(real, GRID[1] * GRID[2], axis=1)
    return np.asarray(jax.jit(lambda i, m: masking.draw(KEY, i, m, GRID))(index, patch_mask))


def test_the_same_places_stay_in_every_real_step() -> None:
    real = np.ones((200, GRID[0]), bool)
    real[1::2, 2:] = False
    masking = KeepTubes(0.3)
    keep = drawn(masking, real)
    assert keep.shape == (200, 4 * 5) == (200, masking.slots(60, GRID))  # 0.3 of 15 places is 4.5
    counts = np.zeros(15)
    for row, steps in zip(keep, real, strict=True):
        ids = row[row >= 0]
        assert (np.diff(ids) > 0).all()
        assert (row[len(ids) :] == -1).all()
        places = [set(ids[ids // 15 == step] % 15) for step in range(4)]
        assert [len(each) for each in places] == [5 if real else 0 for real in steps]
        assert all(each in (places[0], set()) for each in places)
        counts[list(places[0])] += 1
    expected = 200 * 5 / 15
    assert np.sum((counts - expected) ** 2 / (expected * (1 - 5 / 15))) < 36.1  # chi-squared, 14 degrees, 1 in 1,000


def test_each_example_is_drawn_alone_and_the_published_number_stays() -> None:
    real = np.ones((6, GRID[0]), bool)
    whole = drawn(KeepTubes(0.3), real)
    np.testing.assert_array_equal(drawn(KeepTubes(0.3), real[:2], np.array([4, 1], np.uint32)), whole[[4, 1]])
    assert len({row.tobytes() for row in whole}) > 4
    assert KeepTubes(0.1).slots(8 * 196, (8, 14, 14)) == 160
    assert KeepTubes(0.5, most=3).slots(60, GRID) == 12


def test_another_grid_is_refused() -> None:
    index: Any = np.arange(2, dtype=np.uint32)
    patches: Any = np.ones((2, 12), bool)
    with pytest.raises(UserError, match=r"the grid is \(12,\): it takes a tower over tubelets"):
        KeepTubes(0.1).draw(KEY, index, patches, (12,))
    with pytest.raises(UserError, match=r"KeepTubes\(share=0\)"):
        KeepTubes(0)


def test_targets_are_normalised_in_each_channel() -> None:
    patches: Any = np.random.default_rng(0).normal(2, 3, size=(2, 4, 30)).astype(np.float32)
    found = np.asarray(normalised_patches(patches, 3))
    cells = patches.reshape(2, 4, 10, 3).astype(np.float64)
    expected = (cells - cells.mean(2, keepdims=True)) / np.sqrt(cells.var(2, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found.reshape(2, 4, 10, 3), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found - np.asarray(normalised_patches(patches))).max() > 0.1


def test_videomae_learns_from_a_tenth_of_the_tubes_and_padding_changes_nothing() -> None:
    blocks = Blocks(width=16, depth=1, heads=2)
    tower = TubeletViT(patch=(2, 4, 4), frames=8, size=16, positions="sincos", pooling="mean", blocks=blocks)
    objective = MaskedVideo(decoder=Decoder(blocks=blocks))
    assert (objective.keep, objective.channels) == (KeepTubes(0.1), 3)
    model = Pretrainer(towers={"video": tower}, objectives={"masked": objective})
    video = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 3), np.uint8)
    mask = np.ones((4, 8), bool)
    mask[0, 4:] = False
    index = np.arange(4, dtype=np.uint32)
    ids = {"index": index, "id": np.stack([index, index], 1)}
    batch = {"video": video, "video_mask": mask, "video_valid": np.ones(4, bool), **ids}
    rngs = {"mask": jax.random.key(1), "dropout": jax.random.key(2)}
    variables = jax.jit(lambda batch: model.init({"params": KEY, **rngs}, batch))(batch)
    loss = jax.jit(lambda batch: model.apply(variables, batch, rngs=rngs))
    first = loss(batch)[0]
    assert 0.5 < float(first) < 3
    other = video.copy()
    other[0, 4:] = 255 - other[0, 4:]
    assert float(loss({**batch, "video": other})[0]) == float(first)
    other[1, 6] = 0
    assert float(loss({**batch, "video": other})[0]) != float(first)
    vit = ViT(patch=4, size=16, blocks=blocks, pooling="mean")
    flat = Pretrainer(
        towers={"image": vit}, objectives={"masked": MaskedVideo(decoder=Decoder(blocks=blocks), modality="image")}
    )
    with pytest.raises(UserError, match="it takes a tower over tubelets"):
        flat.init({"params": KEY, **rngs}, {"image": video[:, 0], "image_valid": np.ones(4, bool), **ids})


def test_a_tubes_share_is_that_of_places() -> None:
    """As many as `Keep` leaves of the picture, in each step."""
    assert KeepTubes(0.3).slots(60, GRID) == 4 * Keep(0.3).slots(15, ())
