"""The contract of objectives: the views that they ask for, their methods, and how they read a batch."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, Shaped

from mmjax.errors import UserError, nearest
from mmjax.models.fusion.contract import reads_embeddings, reads_front
from mmjax.models.layers.masks import TokensAndMask
from mmjax.objectives.masking import Masking

VALID = "_valid"


@dataclass(frozen=True)
class View:
    """The encoding of one input that an objective asks for. Equal views are encoded once, whoever asks for them.

    Attributes:
        input: the batch's entry: "image", "caption_2".
        masking: the rule by which parts of it are kept or corrupted; None: nothing is hidden.
        tower: the tower that encodes it; None: that of the input's name. So frames can use the image tower, and two
            texts one tower.
        teacher: encoded by the moving average of the tower's parameters (`Experiment.ema`), without dropout and without
            a gradient. A teacher and a student of the same input and masking have the same parts hidden.
    """

    input: str
    masking: Masking | None = None
    tower: str | None = None
    teacher: bool = False

    def __post_init__(self) -> None:
        if self.tower == self.input:  # naming the input's own tower gives an equal view
            object.__setattr__(self, "tower", None)

    @property
    def by(self) -> str:
        """The name of the tower that encodes it."""
        return self.input if self.tower is None else self.tower

    def key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key for masking, from the step's key: other maskings of the same input are drawn independently."""
        return named_key(key, self.text())

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key for dropout, from the step's key: that of another tower over the same input is independent."""
        return self.key(key) if self.tower is None else named_key(self.key(key), self.tower)

    def text(self) -> str:
        """The text that the keys are made from; it never changes, so that runs of any version draw the same."""
        return f"View(modality={self.input!r}, masking={self.masking!r})"


@dataclass(frozen=True)
class Together:
    """Several inputs in one sequence, for towers that hold the same `mmjax.models.Trunk` (M3AE, arXiv:2205.14204). An
    example that lacks one of them is encoded without it."""

    parts: tuple[View, ...]

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key for dropout, from the step's key."""
        texts = ", ".join(part.text() for part in self.parts)
        return named_key(key, f"Together(parts=({texts}{',' * (len(self.parts) == 1)}))")


@dataclass(frozen=True)
class Fused:
    """A fusion encoder over the tokens of views that are encoded anyway, each by its own tower (FLAVA, ALBEF, ViLBERT).

    Attributes:
        fusion: the name of one of the experiment's `fusions`; see `mmjax.models.fusion.contract`.
        parts: views of different inputs. An example that lacks one of them has no real token of it. Where they are a
            teacher's, so is the fusion.
    """

    fusion: str
    parts: tuple[View, ...]

    @property
    def teacher(self) -> bool:
        """True if the moving average of the fusion's parameters encodes it, as the towers' does its parts."""
        return all(part.teacher for part in self.parts)

    def dropout_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """The key for dropout, from the step's key."""
        texts = ", ".join(part.text() for part in self.parts)
        return named_key(key, f"Fused(fusion={self.fusion!r}, parts=({texts}))")


AnyView = View | Together | Fused


def named_key(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key for the use of that name, from another key."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def parts(view: AnyView) -> tuple[View, ...]:
    """The views of one input that a view is made of."""
    return (view,) if isinstance(view, View) else view.parts


def of_teacher(view: View | Fused) -> View | Fused:
    """The same view by the teacher."""
    own = tuple(replace(part, teacher=True) for part in parts(view))
    return own[0] if isinstance(view, View) else replace(view, parts=own)


@dataclass(frozen=True)
class Context:
    """The state of the step that `per_example` and `per_pair` get.

    Attributes:
        train: whether the objective trains, and so applies dropout.
        key: the step's key; None: there is none (no `mask` key was given).
        use: the name in this objective's keys, so that another's are independent.
        rows: the `index` of each example in the global batch, or those of each pair's rows `[P, views]`.
        fusions: the fusion encoders by name, and which of them train.
        step: the number of steps before this one, for what is a function of it.
    """

    train: bool = False
    key: PRNGKeyArray | None = None
    use: str = ""
    rows: Int[Array, "b *views"] | None = None
    fusions: Mapping[str, tuple[Any, bool]] = field(default_factory=dict)
    step: int | Int[Array, ""] = 0

    @property
    def keys(self) -> Key[Array, " b"]:
        """Each example's own key of this step, or each pair's (folded with all its rows): random numbers drawn by it
        don't depend on how the batch is cut up. There are keys in evaluation too: draws for training only must check
        `train` first.

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

    def reads_front(self, fusion: str, input: str) -> bool:
        """True if the fusion of that name reads, of an input, what goes into its tower's trunk (`Encoded.read`)."""
        return fusion in self.fusions and reads_front(self.fusions[fusion][0], input)

    def fuse(
        self, fusion: str, tokens: Mapping[str, TokensAndMask]
    ) -> tuple[Mapping[str, TokensAndMask], Float[Array, "b e"]]:
        """Applies the experiment's fusion encoder of that name to tokens: for `per_pair` (see `TwoRounds.fusions`).

        Raises UserError where there is none of that name.
        """
        if fusion not in self.fusions:
            raise UserError(
                f"there is no fusion {fusion!r}; the fusions are {', '.join(self.fusions) or 'none'}"
                f"{nearest(fusion, self.fusions)}"
            )
        module, trains = self.fusions[fusion]
        if reads_embeddings(module):
            raise UserError(
                f"the fusion {fusion!r} is a {type(module).__name__}, which reads embeddings, and here tokens are to "
                "meet: take one that reads tokens (Merged, Cross, CoAttention)"
            )
        return module(tokens, train=trains, keys=self.keys if trains and self.key is not None else None)


class RowPairs(NamedTuple):
    """Rows of the global batch that are compared in the second round."""

    rows: Int[Array, "p v"]
    """The row, in each pair, of each of the objective's `kept` views."""
    valid: Bool[Array, " p"]
    """True where every row exists and has its view's input."""


class Objective(Protocol):
    """The contract of a Linen module that is an objective. `per_example` runs inside the scan over microbatches."""

    def views(self) -> tuple[AnyView, ...]:
        """The views that must be encoded."""
        ...

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Any:
        """Computes everything that depends on one example (heads, decoders): a pytree of `[B, ...]`.

        encoded: for each view an `Encoded`, `EncodedKept` (a `PatchMasking`), `EncodedCorrupted` (a `Corrupt`),
        `EncodedRegions` (a `CorruptRegions`), `EncodedTogether` or `EncodedFused` (`mmjax.objectives.encoded`).
        """
        ...

    def batch_loss(self, outputs: Any, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss and metrics from all examples' outputs; runs once, on the global batch. For an objective of two
        rounds `outputs` is (those of `per_example`, those of `per_pair`).
        """
        ...


@runtime_checkable
class TwoRounds(Objective, Protocol):
    """The further contract of an objective that chooses pairs from the whole batch, and then reads their tokens:
    image-text matching with hard negatives (ALBEF, arXiv:2107.07651).

    It may also have `fusions()`, the names of the fusion encoders that `per_pair` calls (`context.fuse`); a fusion that
    nothing names is an error, since it would never train.
    """

    def kept(self) -> tuple[View, ...]:
        """Those of its `views` whose tokens are kept after the first round, as `[B,N,D]` of the whole batch."""
        ...

    def pairs(self, outputs: Any, batch: Mapping[str, Array], key: PRNGKeyArray) -> Int[Array, "p v"]:
        """The row, for each pair, of each view in `kept`; runs once, on the global batch and without a gradient. A row
        of -1 makes a pair that isn't valid. key: this step's, for random choices.
        """
        ...

    def per_pair(self, tokens: Mapping[View, TokensAndMask], pair: RowPairs, context: Context) -> Any:
        """Computes everything that depends on one pair, in a second scan: a pytree of `[P, ...]`. tokens: for each view
        in `kept` those of the pairs' rows, `[P,N,D]`, and their mask. Outputs of invalid pairs must not count: return
        `pair.valid` for `batch_loss`.
        """
        ...


@runtime_checkable
class Predicting(Protocol):
    """The further contract of an objective that can be asked what it predicts: a label, or whether two belong
    together."""

    def predict(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Float[Array, "b c"]:
        """The logits of each example, from its views alone; the batch has their entries, and perhaps no label."""
        ...


@runtime_checkable
class Matches(Protocol):
    """The further contract of an objective of two rounds that can be asked whether two belong together."""

    def kept(self) -> tuple[View, ...]:
        """The two views."""
        ...

    def matched(self, tokens: Mapping[View, TokensAndMask], context: Context) -> Float[Array, "p 2"]:
        """The logits of pairs, not belonging together and belonging together, from the tokens of both."""
        ...


@runtime_checkable
class Writing(Protocol):
    """The further contract of an objective whose decoder writes texts."""

    decoder: Any
    """See `mmjax.models.TextDecoder`."""
    text: str
    """The input whose words it predicts."""
    reads: tuple[str, ...]
    """The inputs that the decoder reads, or the fusion."""
    fusion: str | None
    """The fusion encoder by which they are read; None: each by its tower."""

    def reading(self) -> tuple[AnyView, ...]:
        """The views of what the decoder reads beside its text."""
        ...

    def read(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array]) -> Mapping[str, TokensAndMask]:
        """The tokens that the decoder reads, by the input's name."""
        ...


@dataclass(frozen=True)
class ReadBeside:
    """Stands for an objective that writes where the text isn't there yet: it has the other views alone."""

    objective: Writing

    def views(self) -> tuple[AnyView, ...]:
        """The views of what the decoder reads beside its text."""
        return self.objective.reading()


def fusions(objective: Any) -> tuple[str, ...]:
    """The names of the fusion encoders that an objective reads, as views or by itself."""
    viewed = [view.fusion for view in objective.views() if isinstance(view, Fused)]
    return tuple(dict.fromkeys([*viewed, *getattr(objective, "fusions", tuple)()]))


def valid(batch: Mapping[str, Array], input: str) -> Bool[Array, " b"]:
    """A mask of the examples that have the input: `batch["<input>_valid"]`."""
    return entry(batch, input + VALID)


def usable(objective: Any, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
    """A mask of the examples that an objective can use: those that its `counted(batch)` tells, where it has that (they
    have their label, say); else they have every view of it, and at least one of inputs that are encoded together.
    """
    if hasattr(objective, "counted"):
        return objective.counted(batch)

    def whole(view: AnyView) -> Bool[Array, " b"]:
        each = jnp.stack([valid(batch, one.input) for one in parts(view)])
        return jnp.all(each, axis=0) if isinstance(view, Fused) else jnp.any(each, axis=0)

    return jnp.all(jnp.stack([whole(view) for view in objective.views()]), axis=0)


def entry(batch: Mapping[str, Array], name: str) -> Array:
    """Returns `batch[name]`; where there is none, raises UserError, which lists the batch's entries."""
    if name not in batch:
        raise UserError(f"the batch has no {name!r}; it holds {', '.join(sorted(batch))}")
    return batch[name]


def selected(rows: Bool[Array, " b"], x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
    """`x` with zeros outside of `rows`. Call it before anything is computed from `x`: a NaN that is selected away only
    afterwards comes back in the gradient, where it is multiplied by 0.
    """
    return jnp.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, 0)


def present(batch: Mapping[str, Shaped[Array, "b *e"]]) -> dict[str, Shaped[Array, "b *e"]]:
    """The batch with zeros where an example lacks the input of an entry that could hold, or make, a NaN.

    Those are floats, and token ids, of which those outside the vocabulary have vectors of NaN. Bytes and 16-bit
    waveforms are always finite, and are left unchanged. Batches of the pipeline have zeros there already. Selected
    later, a NaN would have gone through a tower, whose gradient it spoils though the row has no weight.
    """
    rows = {name.removesuffix(VALID): there for name, there in batch.items() if name.endswith(VALID)}

    def cleaned(name: str, x: Shaped[Array, "b *e"]) -> Shaped[Array, "b *e"]:
        owners = [owner for owner in rows if name == owner or name.startswith(f"{owner}_")]
        spoils = jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == jnp.int32
        return selected(rows[max(owners, key=len)], x) if owners and spoils else x

    return {name: cleaned(name, x) for name, x in batch.items()}
