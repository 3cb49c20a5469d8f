"""The attentions that there are, by name, and `auto`: the one that suits the device, the dtype and the length."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from mmjax.models.layers.attention import attend, attend_fused, compiled_for
from mmjax.models.layers.tpu_attention import MOST_KEYS, attend_pallas

AttentionName = Literal["auto", "plain", "cudnn", "pallas"]

# With fewer queries or keys a tile of logits is less than one register wide or high. The time that starting it takes is
# then as long as what plain attention takes to move its logits: estimated (0.35 us a tile, on no chip).
LEAST_LENGTH = 128
LEAST_CAPABILITY = 8.0  # of a GPU, for cuDNN's fused attention: Ampere


class Choice(NamedTuple):
    """The attention that `auto` took for so many queries and keys, and why."""

    queries: int
    keys: int
    name: AttentionName
    reason: str


_noted: ContextVar[list[Choice] | None] = ContextVar("_noted", default=None)


@contextlib.contextmanager
def choices() -> Iterator[list[Choice]]:
    """Lists what `auto` takes in what is traced within, each once."""
    found: list[Choice] = []
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def suitable(queries: int, keys: int, size: int, dtype: jax.numpy.dtype) -> Choice:
    """The attention for heads of `size` channels on what is compiled for: plain where that is better or alone works."""
    platform = compiled_for()

    def plain(reason: str) -> Choice:
        return Choice(queries, keys, "plain", reason)

    if platform not in ("gpu", "tpu"):
        return plain(f"no kernel for {platform!r}")
    if dtype.itemsize != 2:
        return plain(f"{dtype.name}: the kernels are for 16 bits")
    if platform == "gpu":
        if (capability := _capability()) < LEAST_CAPABILITY:
            return plain(f"a GPU of compute capability {capability}: cuDNN's kernel needs {LEAST_CAPABILITY}")
        if size % 8 or size > 128:
            return plain(f"heads of {size} channels: cuDNN's kernel takes multiples of 8 up to 128")
        return Choice(queries, keys, "cudnn", "16 bits on an NVIDIA GPU")
    if min(queries, keys) < LEAST_LENGTH:
        return plain(f"fewer than {LEAST_LENGTH} queries or keys: small logits")
    if keys > MOST_KEYS:
        return plain(f"more than {MOST_KEYS:,} keys: the kernel holds them all")
    return Choice(queries, keys, "pallas", "16 bits on a TPU, logits larger than tokens")


def attend_auto(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
) -> Float[Array, "b h n k"]:
    """`attend` by the attention that `suitable` takes."""
    choice = suitable(query.shape[2], key.shape[2], query.shape[3], query.dtype)
    if (noted := _noted.get()) is not None and choice not in noted:
        noted.append(choice)
    return ATTENTIONS[choice.name](query, key, value, mask, causal, allowed, spare)


def spare_tokens(attention: AttentionName, length: int, size: int, dtype: jax.numpy.dtype) -> int:
    """The number of tokens of padding that bring sequences to a length that the attention takes as it is, for heads of
    `size` channels. Added once, they spare each block the copies of all its queries, keys and values into padded ones.
    """
    name = suitable(length, length, size, dtype).name if attention == "auto" else attention
    return length % 2 if name == "cudnn" else 0


def _capability() -> float:
    """The compute capability of this process's GPU; that of a GPU that isn't there is enough."""
    if jax.default_backend() != "gpu":
        return LEAST_CAPABILITY
    given = getattr(jax.devices()[0], "compute_capability", "")  # an AMD GPU has none, or one that is no number
    try:
        return float(given)
    except ValueError:
        return 0.0


ATTENTIONS = {"auto": attend_auto, "plain": attend, "cudnn": attend_fused, "pallas": attend_pallas}
