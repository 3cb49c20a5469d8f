"""Rotary positions: against complex numbers, by what depends on distance alone, and in the towers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.rotary import angles, rotate
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.shared_trunk import Trunk
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from tests.flat import flat
from tests.models import oracle

SIZE: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "pooling": "mean", "positions": "rotary"}
TEXT: dict[str, Any] = {**SIZE, "vocab": 50, "length": 12}
IMAGE: dict[str, Any] = {**SIZE, "patch": 4, "size": (8, 12)}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_pair_is_a_complex_number_times_one_of_length_one():
    """Su et al., equation 34, in float64: channels (2i, 2i + 1) times exp(1j m 10000^(-2i / d))."""
    x, size = drawn(2, 3, 7, 8), 8
    turned = np.exp(1j * np.arange(7)[:, None] * 10_000.0 ** (-2 * np.arange(size // 2) / size))
    want = (x[..., 0::2] + 1j * x[..., 1::2]) * turned
    got = rotate(jnp.asarray(x), angles(np.arange(7)[:, None], size))
    np.testing.assert_allclose(got[..., 0::2], want.real, atol=2e-6)
    np.testing.assert_allclose(got[..., 1::2], want.imag, atol=2e-6)


def test_products_depend_on_the_distance_alone():
    """Along both axes of a grid; and turning changes no length."""
    query, key = drawn(1, 1, 1, 16), drawn(1, 1, 1, 16, seed=1)

    def product(at, other):
        turned = [rotate(jnp.asarray(x), angles(np.array([c]), 16)) for x, c in ((query, at), (key, other))]
        return float((turned[0] * turned[1]).sum())

    assert product((3, 5), (4, 9)) == pytest.approx(product((0, 0), (1, 4)), abs=1e-4)
    assert product((3, 5), (4, 9)) != pytest.approx(product((0, 0), (4, 1)), abs=1e-2)
    turned = rotate(jnp.asarray(query), angles(np.array([(100.5, -7)]), 16))
    assert jnp.linalg.norm(turned) == pytest.approx(np.linalg.norm(query), rel=1e-6)


def test_channels_beyond_the_angles_stay_and_examples_may_have_angles_of_their_own():
    x = jnp.asarray(drawn(2, 3, 5, 8))
    places = np.stack([np.arange(5), np.arange(5)[::-1]])[..., None]
    got = rotate(x, angles(places, 4))
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    for i in range(2):
        np.testing.assert_allclose(got[i], rotate(x[i : i + 1], angles(places[i], 4))[0], atol=1e-6)


def test_speeds_for_coordinates_within_one_by_hand():
    """MERLOT Reserve's: 2^linspace(0, log2 5, n) half turns, of n pairs for each axis, in half of a head's channels."""
    places = np.array([(0.5, -0.25, 0.0, 1.0), (-1.0, 0.75, 0.125, 0.0)])
    got = angles(places, 32, fastest=5.0)
    assert got.shape == (2, 16)
    for axis in range(4):
        for k in range(4):
            want = np.pi * places[:, axis] * 5 ** (k / 3)
            np.testing.assert_allclose(got[:, 4 * axis + k], want, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(angles(places[:, :1], 2, fastest=5.0), np.pi * places[:, :1], rtol=1e-6)  # one pair
    x = drawn(1, 2, 2, 64)
    turned = rotate(jnp.asarray(x), got)
    np.testing.assert_array_equal(turned[..., 32:], x[..., 32:])
    assert np.abs(turned - x)[..., :32].max() > 0.1


def test_such_a_turn_is_a_rotation():
    """Norms stay, and products of queries and keys depend on the differences of all coordinates alone."""
    query, key = drawn(1, 2, 1, 64), drawn(1, 2, 1, 64, seed=1)

    def product(at, other, **scaled):
        turned = [rotate(jnp.asarray(x), angles(np.array([c]), 32, fastest=5.0), **scaled)
                  for x, c in ((query, at), (key, other))]  # fmt: skip
        return np.einsum("bhnk,bhnk->h", *turned)

    for axis in range(4):
        moved, other = np.array([0.1, -0.4, 0.25, 0.5]), np.array([0.3, 0.2, -0.5, 0.0])
        step = 0.35 * np.eye(4)[axis]
        np.testing.assert_allclose(product(moved + step, other + step), product(moved, other), atol=1e-4)
        assert np.abs(product(moved + step, other) - product(moved, other)).max() > 1e-2
        apart = product(moved + step, other + step, scaled=True) - product(moved, other, scaled=True)
        assert np.abs(apart).max() > 1e-2  # the scaling isn't relative
    turned = rotate(jnp.asarray(query), angles(np.array([(0.7, -0.2, 0.4, 0.9)]), 32, fastest=5.0))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(query, axis=-1), rtol=1e-6)


def test_the_released_variant_scales_channels():
    """Even ones by sin - cos, odd ones by sin + cos: at angle 0 by -1 and 1."""
    x, at = drawn(2, 3, 5, 8), drawn(5, 3, seed=1)
    got = rotate(jnp.asarray(x), jnp.asarray(at), scaled=True)
    np.testing.assert_allclose(got[..., 0:6:2], x[..., 0:6:2] * (np.sin(at) - np.cos(at)), atol=1e-6)
    np.testing.assert_allclose(got[..., 1:6:2], x[..., 1:6:2] * (np.sin(at) + np.cos(at)), atol=1e-6)
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])
    nowhere = rotate(jnp.asarray(x), jnp.zeros((5, 4)), scaled=True)
    np.testing.assert_allclose(nowhere, x * np.tile([-1, 1], 4), atol=1e-6)


def test_a_text_tower_reads_distances_and_not_places():
    """Padding in front moves a text on: its tokens' vectors stay, and those of learned positions don't."""
    ids = np.array([[7, 8, 9, 7, 0, 0, 0], [0, 0, 0, 7, 8, 9, 7]])
    mask = ids > 0
    for positions, same in (("rotary", True), ("sincos", False)):
        tower = flat(TextTransformer, **{**TEXT, "positions": positions})
        params = oracle.params_of(tower, ids)
        tokens, _ = oracle.apply(tower, params, ids, mask, method="tokens")
        assert np.allclose(tokens[0, :4], tokens[1, 3:], atol=2e-5) == same
        backwards, _ = oracle.apply(tower, params, ids[:, ::-1], mask[:, ::-1], method="tokens")
        assert not np.allclose(backwards[0, ::-1][:4], tokens[0, :4], atol=1e-3)  # the order is read


@pytest.mark.parametrize("kind", ["image", "image with cls", "text", "audio"])
def test_kept_tokens_stand_where_they_stood(kind):
    """All tokens in another order give the same vectors in that order; with some left out, others."""
    rng = np.random.default_rng(0)
    if kind == "text":
        tower, x = flat(TextTransformer, **TEXT), rng.integers(1, 50, (2, 6))
    elif kind == "audio":
        spectrogram = LogMel(mels=8, window=60, fft=512, hop=40)
        tower = flat(AudioTransformer, **SIZE, spectrogram=spectrogram, samples=480, patch=(4, 4))
        x = rng.integers(-9_000, 9_000, (2, 480)).astype(np.int16)
    else:
        tower = flat(ViT, **IMAGE, cls="cls" in kind)
        x = rng.integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    params = oracle.params_of(tower, x)
    whole, _ = oracle.apply(tower, params, x, method="tokens")
    first = tower.prefix
    keep = np.stack([rng.permutation(6) for _ in range(2)])
    moved, _ = oracle.apply(tower, params, x, keep=keep, method="tokens")
    np.testing.assert_allclose(moved[:, :first], whole[:, :first], atol=2e-5)
    for i in range(2):
        np.testing.assert_allclose(moved[i, first:], whole[i, first:][keep[i]], atol=2e-5)
    # A gap tells: the tokens 0 and 5 aren't neighbours, as 0 and 1 are.
    if kind == "text":
        x = np.full_like(x, 7)
        x[:, 0] = 8
        pairs = [oracle.apply(tower, params, x, keep=np.array([k] * 2), method="tokens")[0] for k in ([0, 1], [0, 5])]
        assert not np.allclose(*pairs, atol=1e-3)


def test_pictures_of_another_size_are_stretched_to_the_grid():
    vit = flat(ViT, **IMAGE)
    np.testing.assert_array_equal(vit.coordinates((2, 3)), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])
    np.testing.assert_allclose(vit.coordinates((4, 3))[::3], [(0, 0), (0.5, 0), (1, 0), (1.5, 0)])
    pictures = np.random.default_rng(0).integers(0, 256, (1, 16, 12, 3)).astype(np.uint8)
    params = oracle.params_of(vit, pictures[:, :8])
    assert "position" not in params["params"]
    assert oracle.apply(vit, params, pictures).shape == (1, 16)


def test_errors_name_what_would_do():
    with pytest.raises(UserError, match=r"heads of size 6 can't be turned along 2 axes: .* a multiple of 4"):
        angles(np.zeros((3, 2)), 6)
    with pytest.raises(UserError, match=r"fastest=0 must be above 0"):
        angles(np.zeros((3, 2)), 8, fastest=0)
    trunk = Trunk(blocks=Blocks(width=16, depth=1, heads=2))
    tower = flat(ViT, **{**IMAGE, "depth": 1, "pooling": "cls"}, trunk=trunk)
    with pytest.raises(UserError, match="positions='rotary' acts in a tower's own blocks"):
        oracle.params_of(tower, np.zeros((1, 8, 12, 3), np.uint8))
    known = "learned, sincos, rotary, none"
    with pytest.raises(UserError, match=f"positions='rotery' is not one of {known}; did you mean rotary"):
        oracle.params_of(flat(TextTransformer, **{**TEXT, "positions": "rotery"}), np.zeros((1, 4), np.int32))
    with pytest.raises(UserError, match="heads=3 does not divide width=16"):
        oracle.params_of(flat(TextTransformer, **{**TEXT, "heads": 3}), np.zeros((1, 4), np.int32))
