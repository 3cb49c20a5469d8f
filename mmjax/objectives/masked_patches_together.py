"""Masked modelling of the patches of several inputs that a fusion has read together (CAV-MAE: Gong et al. 2022,
arXiv:2210.07839)."""

from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import UserError
from mmjax.models.decoders.patches_and_words import Kept
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, Fused, View, valid
from mmjax.objectives.encoded import EncodedFused, EncodedKept
from mmjax.objectives.masked import Errors, decoder_dropout, kept, normalised_patches
from mmjax.objectives.masking import PatchMasking
from mmjax.objectives.numerics import at_least_fp32, weighted_mean


class MaskedPatchesTogether(nn.Module):
    """Masked autoencoder over several inputs of patches, a sound and a picture say: each tower reads some of its own
    input's, the fusion all that were read, and a light decoder predicts the others of every input.

    The loss is the sum of the inputs' own, each MAE's: the squared error, averaged over a patch's values and then over
    all hidden patches of that input in the batch. An example that lacks one input counts with the others. A contrastive
    objective that reads the towers by the same `masking` shares their encoding. Metrics, besides the loss:
    `<input>_loss` of each.

    Attributes:
        fusion: one of the experiment's fusions.
        inputs: those that are rebuilt, in the order in which the fusion and the decoder read them.
        masking: of each input the patches that its tower reads.
        decoder: a `mmjax.models.JointDecoder`.
        normalise: targets have mean 0 and variance 1 in each patch.
    """

    fusion: str
    inputs: tuple[str, ...]
    masking: Mapping[str, PatchMasking]
    decoder: Any
    normalise: bool = True

    def views(self) -> tuple[Fused, ...]:
        return (Fused(self.fusion, tuple(View(name, self.masking.get(name)) for name in self.inputs)),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where an input has no masking of patches, or is no input of patches."""
        del inputs
        for name in dict.fromkeys((*self.inputs, *self.masking)):
            if name not in self.inputs or not isinstance(self.masking.get(name), PatchMasking):
                raise UserError(
                    f"{path} has inputs={self.inputs} and masking={dict(self.masking)}: each of them has one that "
                    f"keeps patches, {name!r}: Keep(0.25) say"
                )
            if getattr(towers[name], "vocabulary", None) is not None:
                raise UserError(f"{path} rebuilds patches, and {name!r} are token ids: take MaskedTogether, or leave "
                                "it out")  # fmt: skip

    @nn.compact
    def per_example(
        self, encoded: Mapping[Any, EncodedFused], batch: Mapping[str, Array], context: Context
    ) -> dict[str, Errors]:
        parts = cast(tuple[EncodedKept, ...], encoded[self.views()[0]].parts)
        there = [part.patch_mask & valid(batch, name)[:, None] for name, part in zip(self.inputs, parts, strict=True)]
        # What stands before the patches of each (a CLS) comes before all patches, as the decoder reads it.
        tokens = [part.tokens[:, : part.prefix] for part in parts] + [part.tokens[:, part.prefix :] for part in parts]
        masks = [part.token_mask[:, : part.prefix] for part in parts]
        masks += [part.token_mask[:, part.prefix :] for part in parts]
        states = self.decoder(
            jnp.concatenate(tokens, axis=1),
            jnp.concatenate(masks, axis=1),
            [Kept(part.keep, part.grid, real) for part, real in zip(parts, there, strict=True)],
            sum(part.prefix for part in parts),
            **decoder_dropout(self.decoder, context),
        )
        found = {}
        for name, part, real, state in zip(self.inputs, parts, there, states, strict=True):
            target = at_least_fp32(part.patches)
            target = jax.lax.stop_gradient(normalised_patches(target) if self.normalise else target)
            error = jnp.mean(jnp.square(self._predicted(name, state, target.shape[-1]) - target), axis=-1)
            hidden = real & ~kept(part.keep, real.shape[1])
            found[name] = Errors(jnp.sum(jnp.where(hidden, error, 0), axis=1), hidden.sum(axis=1))
        return found

    def _predicted(self, name: str, states: Float[Array, "b n w"], values: int) -> Float[Array, "b n p"]:
        """The values of each patch of an input, by a linear map of its own."""
        return nn.Dense(
            values,
            kernel_init=nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("embed", "patch")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("patch",)),
            name=f"predict_{name}",
        )(at_least_fp32(states))

    def batch_loss(
        self, outputs: Mapping[str, Errors], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        losses = {name: weighted_mean(*outputs[name], valid(batch, name)) for name in self.inputs}
        return sum(losses.values(), jnp.zeros(())), {f"{name}_loss": loss for name, loss in losses.items()}

    def counted(self, batch: Mapping[str, Array]) -> Array:
        """A mask of the examples that have any of the inputs."""
        return jnp.stack([valid(batch, name) for name in self.inputs]).any(axis=0)
