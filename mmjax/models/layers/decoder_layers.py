"""The layers of a text decoder one after the other: over a whole text, scanned, or over what comes next, with memory.

Both passes compute the same numbers: a test holds the second to the first at every position.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from jaxtyping import Array, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.layers.decoder_layer import CrossName, DecoderLayer, Sight
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.memory import LayerMemory, empty
from mmjax.models.layers.parameters import HIDDEN, constrain

Memories = tuple[LayerMemory, ...]


class Group(nn.Module):
    """Layers one after the other, of which the last reads the context: what a scan repeats. Returns a pair, as its body
    does."""

    blocks: DecoderBlocks
    every: int
    cross: CrossName

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        sight: Sight,
        keys: Key[Array, " b"] | None,
        layers: Int[Array, " every"],
        windows: Int[Array, " every"] | None,
    ) -> tuple[Float[Array, "b n d"], None]:
        for i in range(self.every):
            cross: CrossName = self.cross if i == self.every - 1 else "none"
            own = None if keys is None else jax.vmap(lambda key, i=i: jax.random.fold_in(key, layers[i]))(keys)
            seen = sight if windows is None else windowed(sight, windows[i])
            x, _ = DecoderLayer(self.blocks, cross, name=f"layer_{i}")(x, seen, own)
        return x, None


class DecoderLayers(nn.Module):
    """`blocks.depth` layers, and a last norm where they are pre-norm.

    Attributes:
        blocks: their sizes and choices. Dropout needs the examples' `keys`, or else a `dropout` key.
        cross: how layers read a context (`DecoderLayer`).
        cross_from: number of first layers that read none (CoCa's unimodal half).
        cross_every: of the others, the last of every so many reads it.
        final_norm: whether there is that norm.
    """

    blocks: DecoderBlocks
    cross: CrossName = "none"
    cross_from: int = 0
    cross_every: int = 1
    final_norm: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], sight: Sight, train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> Float[Array, "b n d"]:
        """The tokens after all layers.

        sight: what they see. train: whether dropout acts. keys: each example's for it.

        Raises:
            UserError: a choice that can't be; a context without `cross`, or the reverse.
        """
        blocks = self.blocks
        self.check(sight.context is not None)
        x = constrain(x.astype(blocks.dtype), *HIDDEN)
        keys = dropout_keys(self, blocks.dropout, train, keys, len(x))
        windows = blocks.windows()
        every_window = jnp.array([window or 0 for window in windows]) if any(windows) else None
        for name, first, groups, every, cross in self.parts():
            places = jnp.arange(first, first + groups * every).reshape(groups, every)
            axes = (nn.broadcast, nn.broadcast, 0, 0 if any(windows) else nn.broadcast)
            scanned = blocks.scanned(Group, groups, axes)
            own = None if every_window is None else every_window[places]
            x, _ = scanned(blocks, every, cross, name=name)(x, sight, keys, places, own)
        return blocks.norm_layer("norm")(x) if self.normed else x

    def extend(
        self, x: Float[Array, "b n d"], sight: Sight, memories: Memories
    ) -> tuple[Float[Array, "b n d"], Memories]:
        """The tokens that come next after all layers, and the memories with them. Layers stand one after the other in
        the program, each memory an array of its own, so that a slot is written in place."""
        self.check(sight.context is not None or memories[0].context is not None or memories[-1].context is not None)
        params: Any = meta.unbox(self.variables["params"])
        x, found = x.astype(self.blocks.dtype), []
        windows = self.blocks.windows()
        for i, (layer, own) in enumerate(self.layers(params)):
            seen = sight if windows[i] is None else windowed(sight, jnp.int32(windows[i]))
            result: Any = layer.apply({"params": own}, x, seen, None, memories[i])
            x, memory = result
            found.append(memory)
        if self.normed:
            normed: Any = self.blocks.norm_layer(parent=None).apply({"params": params["norm"]}, x)
            x = normed
        return x, tuple(found)

    def layers(self, params: Mapping[str, Any]) -> Iterator[tuple[DecoderLayer, Any]]:
        """Each layer in order, and its own parameters out of those of all; these may be `unstacked`."""
        for name, _, groups, every, cross in self.parts():
            for group in range(groups):
                for i in range(every):
                    kind: CrossName = cross if i == every - 1 else "none"
                    stacked = params[name]
                    own = stacked[str(group)] if "0" in stacked else jax.tree.map(lambda x, g=group: x[g], stacked)
                    yield DecoderLayer(self.blocks, kind, parent=None), own[f"layer_{i}"]

    def memories(self, batch: int, slots: int) -> Memories:
        """Memories without a token, of every layer."""
        blocks = self.blocks
        sizes = batch, blocks.key_heads, slots, blocks.head_size, jnp.dtype(blocks.dtype)
        return tuple(LayerMemory(empty(*sizes)) for _ in range(blocks.depth))

    @property
    def normed(self) -> bool:
        """True if there is a last norm."""
        return self.final_norm and self.blocks.norm == "pre"

    def parts(self) -> list[tuple[str, int, int, int, CrossName]]:
        """The scans: the name of its parameters, its first layer, how many groups of how many layers, and how the last
        layer of a group reads the context."""
        depth = self.blocks.depth
        first = depth if self.cross == "none" else self.cross_from
        lower = [("lower", 0, first, 1, "none")] if first else []
        upper = [("upper", first, (depth - first) // self.cross_every, self.cross_every, self.cross)]
        return [*lower, *(upper if first < depth else [])]  # pyright: ignore[reportReturnType]

    def check(self, context: bool) -> None:
        """Raises UserError where a choice can't be. context: whether there is one."""
        depth = self.blocks.depth
        self.blocks.check()
        if self.cross not in get_args(CrossName):
            raise UserError(not_among("cross", self.cross, get_args(CrossName)))
        if self.cross == "none":
            if context:
                raise UserError("context tokens are given, and no layer reads them: set cross='within', say")
            return
        if not context:
            raise UserError(f"cross={self.cross!r} reads context tokens, and there are none")
        left = depth - self.cross_from
        if self.cross_from < 0 or self.cross_every < 1 or left < 1 or left % self.cross_every:
            raise UserError(
                f"cross_from={self.cross_from} leaves {left} of depth={depth} layers, of which the last of every "
                f"cross_every={self.cross_every} is to read the context: both must leave groups of that many"
            )


def windowed(sight: Sight, window: Int[Array, ""]) -> Sight:
    """The sight of a layer that has a window, `window` tokens; 0: it has none."""
    near = (sight.apart < window) | (window == 0)  # pyright: ignore[reportOptionalOperand]
    allowed = near & ((sight.apart >= 0) if sight.allowed is None else sight.allowed)  # pyright: ignore[reportOptionalOperand]
    return sight._replace(allowed=allowed)


def unstacked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `DecoderLayers` with each group's as arrays of their own: a program that writes word by word then
    reads them where they are, without a copy of each layer's piece of the stack."""

    def apart(stacked: Any) -> dict[str, Any]:
        groups = len(jax.tree.leaves(stacked)[0])
        return {str(group): jax.tree.map(lambda x, g=group: x[g], stacked) for group in range(groups)}

    return {name: apart(part) if name in ("lower", "upper") else part for name, part in params.items()}
