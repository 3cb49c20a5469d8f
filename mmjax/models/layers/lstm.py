"""A layer of an LSTM (Hochreiter & Schmidhuber 1997) that goes on from a state, and may attend to tokens at each step.

The towers' LSTM (`mmjax.models.towers.recurrent`) is Linen's cell, which starts at zero, has no forget bias and reads
nothing besides.
"""

from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.models.layers.additive_attention import AdditiveAttention, Annotations
from mmjax.models.layers.parameters import DtypeName, Initializer, dense


class LstmState(NamedTuple):
    """A layer's memory c and output h, float32."""

    memory: Float[Array, "b w"]
    output: Float[Array, "b w"]


class LstmOutputs(NamedTuple):
    """A layer's output after each position; what it attended to for it, and with which weights: None where it doesn't
    attend."""

    states: Float[Array, "b n w"]
    attended: Float[Array, "b n e"] | None = None
    weights: Float[Array, "b n c"] | None = None


def lstm_step(gates: Float[Array, "b g"], state: LstmState, forget_bias: float) -> LstmState:
    """The state after one step. gates: `[B, 4 * width]`, in PyTorch's order: input, forget, candidate, output.

    `c = sigmoid(f + forget_bias) c + sigmoid(i) tanh(g)`, `h = sigmoid(o) tanh(c)`.
    """
    i, f, g, o = jnp.split(gates.astype(state.memory.dtype), 4, axis=-1)
    memory = nn.sigmoid(f + forget_bias) * state.memory + nn.sigmoid(i) * jnp.tanh(g)
    return LstmState(memory, nn.sigmoid(o) * jnp.tanh(memory))


class LstmLayer(nn.Module):
    """Vectors `[b n i]` -> outputs `[b n width]`. With an attention each step reads, besides its vector, what this
    finds in the annotations by the output before.

    Attributes:
        width: of memory and output.
        forget_bias: added to the forget gate, as TensorFlow's cell does; it isn't trained (PyTorch's has none).
        initial: of the matrices; biases start at zero.
        attention: over the annotations; None: there is none.
    """

    width: int
    forget_bias: float
    initial: Initializer
    dtype: DtypeName
    attention: AdditiveAttention | None = None

    def setup(self) -> None:
        # No axis is cut over `tensor`: each step would wait for the others' part of the state.
        axes, size = ("embed", None), 4 * self.width
        self.of_input = dense(size, axes, self.initial, dtype=self.dtype)
        self.of_state = dense(size, axes, self.initial, dtype=self.dtype, bias=False)
        if self.attention is not None:
            self.of_seen = dense(size, axes, self.initial, dtype=self.dtype, bias=False)

    def __call__(
        self, x: Float[Array, "b n i"], real: Bool[Array, "b n"], start: LstmState, seen: Annotations | None = None
    ) -> tuple[LstmOutputs, LstmState]:
        """The outputs, and the last state. Positions that aren't real leave the state as it is, wherever they stand."""

        def step(layer: Any, state: LstmState, inputs: Any, seen: Annotations | None) -> tuple[LstmState, LstmOutputs]:
            gates, real = inputs
            gates = gates + layer.of_state(state.output)
            attended = weights = None
            if layer.attention is not None:
                attended, weights = layer.attention(state.output, seen)
                gates = gates + layer.of_seen(attended)
            after = lstm_step(gates, state, layer.forget_bias)
            after = jax.tree.map(lambda new, old: jnp.where(real[:, None], new, old), after, state)
            return after, LstmOutputs(after.output, attended, weights)

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=cast(Any, (1, nn.broadcast)),
            out_axes=1,
        )
        last, outputs = scan(self, start, (self.of_input(x), real), seen)  # words' products are one for all steps
        return outputs, last
