"""The contract of objectives: the views that they ask for, their methods, and how they read a batch."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, Shaped

from mmjax.errors import UserError, nearest
from mmjax.models.fusion.contract import TokensAndMask
from mmjax.objectives.masking import Masking

VALID = "_valid"


@dataclass(frozen=True)
class View:
    """What of an input is to be encoded, and by what. Equal views are encoded once, whoever asks for them.

    Attributes:
        input: the batch's entry: "image", "caption_2".
        masking: what of it is kept or corrupted; None: nothing is hidden.
        tower: the tower that encodes it; None: that of the input's name. So frames can use the image tower, and two
            texts one tower.
        teacher: encoded by the moving average of the tower's parameters (`Experiment.ema`), without dropout and without
            a gradient. What is hidden from a teacher is hidden from the student of the same input and masking.
    """

    input: str
    masking: Masking | None = None
    tower: str | None = None
    teacher: bool = False

    def __post_init__(self) -> None:
        if self.tower == self.input:  # said twice: still the same view
            object.__setattr__(self, "tower", None)

    @property
    def by(self) -> str:
        """The name of the tower that encodes it."""
        return self.input if self.tower is None else self.tower

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Of the step's key the one for what is hidden: other maskings of the same input are drawn independently."""
        return named_key(key, self.text())

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Of the step's key the one for dropout: that of another tower over the same input is independent."""
        return self.key(key) if self.tower is None else named_key(self.key(key), self.tower)

    def text(self) -> str:
        """What the keys are made of; it has never changed, so that runs of any version draw the same."""
        return f"View(modality={self.input!r}, masking={self.masking!r})"


@dataclass(frozen=True)
class Together:
    """Several inputs in one sequence, for towers that hold the same `mmjax.models.Trunk` (M3AE, arXiv:2205.14204). An
    example that lacks one of them is encoded without it."""

    parts: tuple[View, ...]

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Of the step's key the one for dropout."""
        texts = ", ".join(part.text() for part in self.parts)
        return named_key(key, f"Together(parts=({texts}{',' * (len(self.parts) == 1)}))")


@dataclass(frozen=True)
class Fused:
    """A fusion encoder over the tokens of views that are encoded anyway, each by its own tower (FLAVA, ALBEF, ViLBERT).

    Attributes:
        fusion: the name of one of the experiment's `fusions`; see `mmjax.models.fusion.contract`.
        parts: views of different inputs. An example that lacks one of them has no real token of it.
    """

    fusion: str
    parts: tuple[View, ...]

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Of the step's key the one for dropout."""
        texts = ", ".join(part.text() for part in self.parts)
        return named_key(key, f"Fused(fusion={self.fusion!r}, parts=({texts}))")


AnyView = View | Together | Fused


def named_key(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """Of a key the one for a use of that name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def parts(view: AnyView) -> tuple[View, ...]:
    """The views of one input that a view is made of."""
    return (view,) if isinstance(view, View) else view.parts


@dataclass(frozen=True)
class Context:
    """What `per_example` and `per_pair` are told of the step.

    Attributes:
        train: whether the objective trains, and so drops out what it drops out.
        key: the step's key; None: there is none (no `mask` key was given).
        use: what this objective's keys are named by, so that another's are independent.
        rows: of each example its `index` in the global batch, or of each pair those of its rows `[P, views]`.
        fusions: the fusion encoders by name, and which of them train.
    """

    train: bool = False
    key: PRNGKeyArray | None = None
    use: str = ""
    rows: Int[Array, "b *views"] | None = None
    fusions: Mapping[str, tuple[Any, bool]] = field(default_factory=dict)

    @property
    def keys(self) -> Key[Array, " b"]:
        """Each example's own key of this step, or each pair's (folded with all its rows): what is drawn of it doesn't
        depend on how the batch is cut up. In evaluation too: what only training draws asks for `train` first.

        Raises UserError where the step has no key.
        """
        if self.key is None or self.rows is None:
            raise UserError(
                "an objective draws at random and was given no key: pass rngs={'mask': key} (with train=False too)"
            )
        columns = self.rows.reshape(len(self.rows), -1)
        keys = jax.vmap(partial(jax.random.fold_in, named_key(self.key, self.use)))(columns[:, 0])
        for column in columns.T[1:]:
            keys = jax.vmap(jax.random.fold_in)(keys, column)
        return keys

    def fuse(
        self, fusion: str, tokens: Mapping[str, TokensAndMask]
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """What the experiment's fusion encoder of that name makes of tokens: for `per_pair` (see `TwoRounds.fusions`).

        Raises UserError where there is none of that name.
        """
        if fusion not in self.fusions:
            raise UserError(
                f"there is no fusion {fusion!r}; the fusions are {', '.join(self.fusions) or 'none'}"
                f"{nearest(fusion, self.fusions)}"
            )
        module, trains = self.fusions[fusion]
        return module(tokens, train=trains, keys=self.keys if trains and self.key is not None else None)


class RowPairs(NamedTuple):
    """Rows of the global batch that meet in the second round."""

    rows: Int[Array, "p v"]
    """Of each pair the row that each of the objective's `kept` views comes from."""
    valid: Bool[Array, " p"]
    """Whether every row has its view's input (and is a row at all)."""


class Objective(Protocol):
    """What a Linen module must have to be an objective. `per_example` runs inside the scan over microbatches."""

    def views(self) -> tuple[AnyView, ...]:
        """What must be encoded."""
        ...

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Any:
        """All that can be done example by example (heads, decoders): a pytree of `[B, ...]`.

        encoded: by view an `Encoded`, `EncodedKept` (a `PatchMasking`), `EncodedCorrupted` (a `Corrupt`),
        `EncodedTogether` or `EncodedFused` (`mmjax.objectives.encoded`).
        """
        ...

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss and metrics from all examples' outputs; runs once, on the global batch. Of an objective of two
        rounds `outputs` is (what `per_example` gave, what `per_pair` gave)."""
        ...


@runtime_checkable
class TwoRounds(Objective, Protocol):
    """What an objective has besides, that chooses from the whole batch who meets whom, and then looks at their tokens:
    image-text matching with hard negatives (ALBEF, arXiv:2107.07651).

    It may also have `fusions()`, the names of the fusion encoders that `per_pair` calls (`context.fuse`), so that one
    that nothing else reads isn't taken for one that never trains.
    """

    def kept(self) -> tuple[View, ...]:
        """Of its `views` those whose tokens outlive the first round: so many `[B,N,D]` are held, in the whole batch."""
        ...

    def pairs(self, outputs: Any, batch: Mapping[str, Array], key: PRNGKeyArray) -> Int[Array, "p v"]:
        """Once, on the global batch and without a gradient: of each pair the row of each view in `kept`. A row of -1
        makes a pair that isn't valid. key: this step's, for what is drawn."""
        ...

    def per_pair(self, tokens: Mapping[View, TokensAndMask], pair: RowPairs, context: Context) -> Any:
        """All that can be done pair by pair, in a second scan: a pytree of `[P, ...]`. tokens: of each view in `kept`
        those of the pair's rows, `[P,N,D]`, and which of them are real. What pairs that aren't valid give must not
        count: give `pair.valid` on to `batch_loss`."""
        ...


def fusions(objective: Any) -> tuple[str, ...]:
    """The names of the fusion encoders that an objective reads, as views or by itself."""
    viewed = [view.fusion for view in objective.views() if isinstance(view, Fused)]
    return tuple(dict.fromkeys([*viewed, *getattr(objective, "fusions", tuple)()]))


def valid(batch: Mapping[str, Array], input: str) -> Bool[Array, " b"]:
    """Which examples have the input: `batch["<input>_valid"]`."""
    return entry(batch, input + VALID)


def usable(objective: Any, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
    """Which examples have what an objective reads: every view of it, of several inputs together one at least."""

    def whole(view: AnyView) -> Bool[Array, " b"]:
        each = jnp.stack([valid(batch, one.input) for one in parts(view)])
        return jnp.all(each, axis=0) if isinstance(view, Fused) else jnp.any(each, axis=0)

    return jnp.all(jnp.stack([whole(view) for view in objective.views()]), axis=0)


def entry(batch: Mapping[str, Array], name: str) -> Array:
    """`batch[name]`, or an error that says what the batch holds."""
    if name not in batch:
        raise UserError(f"the batch has no {name!r}; it holds {', '.join(sorted(batch))}")
    return batch[name]


def selected(rows: Bool[Array, " b"], x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
    """`x` with zeros in the rows that aren't among `rows`. To be done before anything is computed of `x`: a NaN that
    is selected away only afterwards comes back in the gradient, where it is multiplied by 0."""
    return jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, 0)


def present(batch: Mapping[str, Shaped[Array, "b *e"]]) -> dict[str, Shaped[Array, "b *e"]]:
    """The batch, with zeros where an example lacks the input of an entry that could hold, or make, a NaN.

    Those are floats, and token ids, of which those outside the vocabulary have vectors of NaN. Bytes and 16-bit
    waveforms are finite whatever they are, and stay as they are. What comes from the pipeline has zeros there already.
    Selected later, a NaN would have gone through a tower, whose gradient it spoils though the row has no weight.
    """
    rows = {name.removesuffix(VALID): there for name, there in batch.items() if name.endswith(VALID)}

    def cleaned(name: str, x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
        owners = [owner for owner in rows if name == owner or name.startswith(f"{owner}_")]
        spoils = jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == jnp.int32
        return selected(rows[max(owners, key=len)], x) if owners and spoils else x

    return {name: cleaned(name, x) for name, x in batch.items()}
