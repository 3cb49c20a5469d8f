"""Losses of one's own, beside the experiment's file."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.objectives import View


class Distance(nn.Module):
    """Half the squared distance of a pair's embeddings, the mean over the examples."""

    pair: tuple[str, str]
    scale: float = 1.0

    def views(self) -> tuple[View, ...]:
        return tuple(View(name) for name in self.pair)

    def per_example(self, encoded: Any, batch: Any, context: Any = None) -> Any:
        a, b = (encoded[view].embedding for view in self.views())
        return jnp.sum((a - b) ** 2, axis=-1) / 2

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        return self.scale * jnp.mean(outputs), {"worst": jnp.max(outputs)}
