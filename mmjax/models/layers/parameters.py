"""Parameters, initialisers, norms and choices by name, for all layers."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from mmjax.errors import UserError, not_among

Initializer = Callable[..., Array]


RematName = Literal["full", "dots"]


InitName = Literal["xavier", "clip", "bert", "reserve", "gpt1", "gpt2"]


DtypeName = Literal["float32", "bfloat16", "float16"]


NormName = Literal["pre", "post"]


def _dots(primitive: Any, *types: Any, **parameters: Any) -> bool:
    """The results of projections, and what fused attention gives: its kernel costs more than to keep that. Logits of
    the plain one are not kept."""
    projection = jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *types, **parameters)
    return projection or primitive.name.startswith("dot_product_attention_fwd")  # cuDNN's, by jax's name


REMAT_POLICIES: dict[str, Callable[..., bool]] = {"full": jax.checkpoint_policies.nothing_saveable, "dots": _dots}


BERT_STD = 0.02  # of every matrix of BERT
GPT_STD = 0.02  # of every matrix of GPT-1, and of GPT-2's but the last of each branch


HIDDEN = ("batch", "length", "embed")  # logical axes of the residual stream


def constrain(x: Array, *names: str | None) -> Array:
    """Asks for a sharding by logical axis names; does nothing where no rules (`nn.logical_axis_rules`) or no mesh are
    set. A dimension that the mesh's axes don't divide stays whole, as it does in parameters."""
    spec = partition(x.shape, *names)
    return x if spec is None else jax.lax.with_sharding_constraint(x, spec)


def partition(shape: tuple[int, ...], *names: str | None) -> jax.sharding.PartitionSpec | None:
    """The sharding for which `constrain` asks; None where it does nothing."""
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(nn.get_logical_axis_rules())
    if mesh.empty or not rules:
        return None
    axes = [rules.get(name) if name else None for name in names]
    sizes = [math.prod(mesh.shape[part] for part in jax.tree.leaves(axis)) for axis in axes]
    return jax.sharding.PartitionSpec(
        *[a if n % size == 0 else None for a, size, n in zip(axes, sizes, shape, strict=True)]
    )


def parameter(
    module: nn.Module, name: str, init: Initializer, axes: tuple[str | None, ...], shape: tuple[int, ...]
) -> Array:
    """A float32 parameter of `module` with logical `axes`, one name for each dimension."""
    return cast(Array, module.param(name, nn.with_logical_partitioning(init, axes), shape))


def layer_norm(name: str | None = None, *, eps: float, dtype: DtypeName) -> nn.LayerNorm:
    """A LayerNorm over the width; its statistics are fp32 whatever `dtype` is."""
    return nn.LayerNorm(
        epsilon=eps,
        dtype=jnp.dtype(dtype),
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


def dense(
    features: int,
    axes: tuple[str | None, str | None],
    init: Initializer,
    *,
    dtype: DtypeName,
    bias: bool = True,
    name: str | None = None,
) -> nn.Dense:
    """A Dense layer whose kernel has the logical `axes` (in, out), and its bias the second of them."""
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=jnp.dtype(dtype),
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        name=name,
    )


def projection_init(fan_in: int, fan_out: int) -> Initializer:
    """Xavier-uniform's range for a `fan_in` x `fan_out` matrix, whatever the shape in which it is stored."""
    return uniform_init((6.0 / (fan_in + fan_out)) ** 0.5)


def uniform_init(bound: float) -> Initializer:
    """Uniform between `-bound` and `bound`."""

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def reserve_init(fan_in: int) -> Initializer:
    """MERLOT Reserve's initialiser of a matrix with so many inputs (Zellers et al. 2022, arXiv:2201.02639): normal, cut
    off at two deviations, each min(18 / fan_in, 0.02) / sqrt(2)."""
    return nn.initializers.truncated_normal(min(18 / fan_in, 0.02) / math.sqrt(2))


def block_inits(name: str, width: int, mlp_dim: int, depth: int) -> dict[str, Initializer]:
    """Initialisers of a block's four matrices, by the names `qkv`, `out`, `mlp_in`, `mlp_out`.

    `xavier`: Glorot-uniform, query, key and value as three matrices. `clip`: normal with the deviations that CLIP
    (Radford et al. 2021) gives its text tower: D^-1/2; D^-1/2 (2L)^-1/2; (2D)^-1/2; D^-1/2 (2L)^-1/2. `bert`: normal
    with 0.02, cut off at two of it (BERT: Devlin et al. 2018). `reserve`: `reserve_init` of each one's inputs. `gpt1`:
    normal with 0.02 (Radford et al. 2018); `gpt2`: the same, those of the two matrices whose results are added times
    (2L)^-1/2 (Radford et al. 2019).
    """
    if name == "xavier":
        square = projection_init(width, width)
        into = projection_init(width, mlp_dim)
        return {"qkv": square, "out": square, "mlp_in": into, "mlp_out": into}
    if name == "clip":
        normal = nn.initializers.normal
        residual = normal(width**-0.5 * (2 * depth) ** -0.5)
        return {"qkv": normal(width**-0.5), "out": residual, "mlp_in": normal((2 * width) ** -0.5), "mlp_out": residual}
    if name == "bert":
        return dict.fromkeys(("qkv", "out", "mlp_in", "mlp_out"), nn.initializers.truncated_normal(BERT_STD))
    if name == "reserve":
        own = reserve_init(width)
        return {"qkv": own, "out": own, "mlp_in": own, "mlp_out": reserve_init(mlp_dim)}
    if name in ("gpt1", "gpt2"):
        residual = GPT_STD if name == "gpt1" else GPT_STD * (2 * depth) ** -0.5
        normal = nn.initializers.normal
        return {"qkv": normal(GPT_STD), "out": normal(residual), "mlp_in": normal(GPT_STD), "mlp_out": normal(residual)}
    raise UserError(not_among("inits", name, get_args(InitName)))


def check_heads(width: int, heads: int) -> int:
    """The size of a head; raises UserError where `heads` doesn't divide `width`."""
    if width % heads:
        fits = [h for h in range(1, width + 1) if width % h == 0]
        raise UserError(f"heads={heads} does not divide width={width}; these do: {fits}")
    return width // heads
