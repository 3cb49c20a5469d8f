"""The smallest fusion encoder, and objectives that read what only few do: pairs, fused views, teachers, keys."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmjax.models.layers.dropout import drop
from mmjax.objectives.contract import Fused, View, usable, valid
from mmjax.objectives.masking import Keep
from mmjax.objectives.numerics import unit, weighted_mean
from tests.objectives.toys import WIDTH, ToyTower

IMAGE, TEXT = View("image"), View("text")
CAPTION = View("caption_2", tower="text")
STUDENT, TEACHER = View("image", Keep(0.5)), View("image", Keep(0.5), teacher=True)
RATE = 0.4


class ToyFusion(nn.Module):
    """Every input's tokens, moved by a function of the means of all."""

    rate: float = RATE

    @nn.compact
    def __call__(self, tokens: Any, train: bool = False, keys: Any = None) -> Any:
        means = jnp.concatenate([ToyTower.pooled(x, mask) for x, mask in tokens.values()], axis=-1)
        seen = nn.gelu(nn.Dense(WIDTH, name="meet")(means))
        seen = drop(seen, self.rate, keys, 0) if train else seen
        moved = {name: (x + nn.Dense(WIDTH, name=name)(seen)[:, None], mask) for name, (x, mask) in tokens.items()}
        return moved, seen


class Matching(nn.Module):
    """Image-text matching: do they belong together? With a hard negative for each picture and for each text."""

    fusion: str = "both"
    most: int = 10**9  # so many pairs at most

    def views(self) -> Any:
        return IMAGE, TEXT

    def kept(self) -> Any:
        return TEXT, IMAGE  # in another order than they are encoded in

    def fusions(self) -> Any:
        return (self.fusion,)

    def per_example(self, encoded: Any, batch: Any, context: Any) -> Any:
        return tuple(unit(encoded[view].embedding) for view in self.views())

    def pairs(self, outputs: Any, batch: Any, key: Any) -> Any:
        image, text = outputs
        rows = jnp.arange(len(image))
        there = valid(batch, "image")[:, None] & valid(batch, "text")
        logits = jnp.where(there & ~jnp.eye(len(rows), dtype=bool), 5 * image @ text.T, -1e9)
        of_image, of_text = (
            jax.random.categorical(k, x) for k, x in zip(jax.random.split(key), (logits, logits.T), strict=True)
        )
        texts, images = jnp.concatenate([rows, of_image, rows]), jnp.concatenate([rows, rows, of_text])
        return jnp.stack([texts, images], axis=1)[: self.most]

    @nn.compact
    def per_pair(self, tokens: Any, pair: Any, context: Any) -> Any:
        _, seen = context.fuse(self.fusion, {"image": tokens[IMAGE], "text": tokens[TEXT]})
        seen = drop(seen, RATE, context.keys, 1) if context.train else seen
        return nn.Dense(1, name="match")(seen)[:, 0], pair.rows[:, 0] == pair.rows[:, 1], pair.valid

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        _, (logits, together, counts) = outputs
        loss = optax.sigmoid_binary_cross_entropy(logits, together)
        return weighted_mean(loss, jnp.ones_like(loss), counts), {"pairs": counts.sum()}


class Fusing(nn.Module):
    """Regresses the text's mean from what fused tokens of the picture say."""

    def views(self) -> Any:
        return (Fused("both", (IMAGE, TEXT)),)

    @nn.compact
    def per_example(self, encoded: Any, batch: Any, context: Any) -> Any:
        fused = encoded[self.views()[0]]
        means = [ToyTower.pooled(part.tokens, part.token_mask) for part in fused.parts]
        return jnp.square(nn.Dense(WIDTH, name="read")(means[0]) - means[1] + fused.embedding).sum(axis=1)

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        return weighted_mean(outputs, jnp.ones_like(outputs), usable(self, batch)), {}


class Distilling(nn.Module):
    """The student's embedding becomes the teacher's; what of it is dropped out is the objective's own to draw."""

    def views(self) -> Any:
        return STUDENT, TEACHER

    def per_example(self, encoded: Any, batch: Any, context: Any) -> Any:
        student, teacher = (encoded[view].embedding for view in self.views())
        student = drop(student, RATE, context.keys, 2) if context.train else student
        return jnp.square(student - teacher).sum(axis=1)

    def batch_loss(self, outputs: Any, batch: Any) -> Any:
        return weighted_mean(outputs, jnp.ones_like(outputs), valid(batch, "image")), {}
