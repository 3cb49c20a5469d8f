"""Rotates queries and keys by their position (RoPE; Su et al. 2021, arXiv:2104.09864)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.errors import UserError
from mmjax.models.layers.positions import WAVELENGTH


def angles(
    coordinates: Float[Array, "*b n a"] | Float[np.ndarray, "*b n a"],
    size: int,
    wavelength: float = WAVELENGTH,
    fastest: float | None = None,
) -> Float[Array, "*b n p"]:
    """The angles, in radians, of the `size // 2` pairs of channels of a head, float32.

    Each of the `a` axes has its share of the pairs, the first axis the first ones, and turns the k-th of its P pairs by
    coordinate * wavelength^(-k / P): the slowest pair comes round after nearly 2 pi `wavelength` positions.

    Args:
        coordinates: places along each axis; real numbers.
        size: the number of channels of a head that are turned, the first ones: all, or fewer.
        wavelength: of the slowest pair.
        fastest: with it speeds are those for coordinates of -1 to 1 (MERLOT Reserve: Zellers et al. 2022,
            arXiv:2201.02639, where it is 5): the k-th pair is turned by pi * coordinate * fastest^(k / (P - 1)), and
            `wavelength` isn't read.

    Raises:
        UserError: `size` doesn't divide into pairs for each axis; `fastest` isn't above 0.
    """
    axes = coordinates.shape[-1]
    if size % (2 * axes):
        raise UserError(
            f"heads of size {size} can't be turned along {axes} axes: width / heads must be a multiple of {2 * axes}"
        )
    if fastest is not None and fastest <= 0:
        raise UserError(f"fastest={fastest} must be above 0: it is the fastest pair's speed by the first one's")
    pairs = size // (2 * axes)
    if fastest is None:
        speeds = (wavelength ** (-np.arange(pairs) / pairs)).astype(np.float32)
    else:
        speeds = (np.pi * 2 ** np.linspace(0, np.log2(fastest), pairs)).astype(np.float32)
    turned = jnp.asarray(coordinates, jnp.float32)[..., None] * speeds
    return turned.reshape(*turned.shape[:-2], axes * pairs)


def rotate(x: Float[Array, "b h n k"], angles: Float[Array, "*b n p"], scaled: bool = False) -> Float[Array, "b h n k"]:
    """Channels 2i and 2i + 1 of each head as a point of the plane, turned by `angles[..., i]`, in fp32.

    Angles are the same for all heads, and with no axis of the batch for all examples. Channels beyond the last angle's
    stay as they are. The product of a query and a key then depends on their positions by the difference alone.

    scaled: nothing is turned; the first channel of a pair is multiplied by sin - cos of its angle, the second by
    sin + cos. MERLOT Reserve's code does so, and its checkpoints want it.
    """
    turned = 2 * angles.shape[-1]
    angles = jnp.expand_dims(angles, -3)
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    pairs = x[..., :turned].astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    if scaled:
        pairs = jnp.stack([first * (sine - cosine), second * (sine + cosine)], axis=-1)
    else:
        pairs = jnp.stack([first * cosine - second * sine, first * sine + second * cosine], axis=-1)
    rotated = pairs.reshape(*x.shape[:-1], turned).astype(x.dtype)
    return rotated if turned == x.shape[-1] else jnp.concatenate([rotated, x[..., turned:]], axis=-1)
