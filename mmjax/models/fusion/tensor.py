"""Tensor fusion: the outer product of the inputs' embeddings (TFN: Zadeh et al. 2017, arXiv:1707.07250)."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError
from mmjax.models.fusion.embeddings import EmbeddingFusion, Entered
from mmjax.models.fusion.joined import FollowingLayers
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import dense, projection_init

MOST_PRODUCTS = 2**20  # of an example: more are 4 MB of float32, and the first layer has a row for each


class TensorFusion(EmbeddingFusion, kw_only=True):
    """The outer product of [1; h_m] over all inputs -> MLP: every product of one number from each input, and of each
    choice of some inputs. The tensor is flattened with the inputs in the order of their names, the last one fastest.

    An input that is missing is [1; 0]: the products with its numbers vanish, and what is left is the outer product of
    those that are there. So no parameter of that input has an effect: neither its projection, nor the first layer's
    rows for products with its numbers.

    Attributes:
        embed_dim: size E of the embedding.
        width: of the linear map of each input before the product; None: h_m is the embedding as it came. The tensor
            grows as the product of all widths; `LowRank` has the same function in factors.
        hidden: widths of the MLP's hidden layers; () leaves one linear layer.
        activation: behind each hidden layer: `gelu` (erf), `gelu_tanh` or `quick_gelu`.
    """

    embed_dim: int
    width: int | None = None
    hidden: tuple[int, ...] = ()
    activation: ActivationName = "gelu"

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """The tokens as they came, and the embedding `[B,E]`, float32.

        Raises:
            UserError: there are fewer than two inputs, an input isn't one token, the tensor of an example would have
                more than 2**20 numbers, or a field's value isn't allowed.
        """
        width = 1 if self.width is None else self.width
        self._check_sizes(embed_dim=self.embed_dim, width=width, hidden=min(self.hidden, default=1))
        inputs = self._entered(tokens, train, keys)
        sizes = {name: (self.width or x.shape[-1]) + 1 for name, (x, _) in inputs.items()}
        if (count := math.prod(sizes.values())) > MOST_PRODUCTS:
            fitting = max(1, int(MOST_PRODUCTS ** (1 / len(sizes))) - 1)
            raise UserError(
                f"the tensor of an example would have {' x '.join(f'{size} ({name})' for name, size in sizes.items())} "
                f"= {count:,} numbers, and {MOST_PRODUCTS:,} are allowed: set width={fitting} or less, or "
                "take LowRank"
            )
        product = jnp.ones((len(next(iter(inputs.values()))[0]), 1), self.dtype)
        for name, entered in inputs.items():
            product = jnp.einsum("bp,bd->bpd", product, self._with_one(name, entered)).reshape(len(product), -1)
        first, *rest = (*self.hidden, self.embed_dim)
        init = projection_init(count, first)
        x = dense(first, ("embed", "mlp"), init, dtype=self.dtype, name="products")(product)
        x = FollowingLayers(tuple(rest), self.activation, self.dtype, name="mlp")(x)
        return tokens, x.astype(jnp.float32)

    def _with_one(self, name: str, entered: Entered) -> Float[Array, "b h"]:
        """[1; h_m], or [1; 0] where the input is missing."""
        x, there = entered
        if self.width is not None:
            init = projection_init(x.shape[-1], self.width)
            x = dense(self.width, ("embed", "mlp"), init, dtype=self.dtype, name=f"project_{name}")(x)
            x = jnp.where(there[:, None], x, 0)  # without the projection's bias
        return jnp.pad(x, ((0, 0), (1, 0)), constant_values=1)
