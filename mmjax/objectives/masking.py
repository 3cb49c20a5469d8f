"""Masking: chooses the parts of an example that the encoder doesn't read.

Every mask belongs to one example. It is drawn from `fold_in(key, index)`, with `index` the example's row in the global
batch, so it depends neither on the other rows nor on how the batch is cut into microbatches, devices or hosts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmjax.errors import UserError
from mmjax.objectives.masking_regions import CorruptRegions

EMPTY = -1  # a slot of `keep` that holds no patch
TRIES = 10  # BEiT's: rectangles in a row that don't fit, after which the search ends


class PatchMasking:
    """Keeps some of each example's patches; the others are dropped before the encoder. Subclasses choose them."""

    def check_ids(self, path: str, tower: str, pieces: int, vocabulary: int | None) -> None:
        """Raises UserError where the ids that it draws aren't those of the texts; see `Corrupt`. Default: it draws
        none.
        """

    def slots(self, patches: int, grid: tuple[int, ...]) -> int:
        """The largest number of patches kept, of `patches` on `grid`."""
        raise NotImplementedError

    def order(
        self, key: PRNGKeyArray, valid: Bool[Array, " n"], grid: tuple[int, ...]
    ) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        """A number for each patch of one example, inf where it isn't valid, and the count kept: those of the lowest
        numbers.
        """
        raise NotImplementedError

    def draw(
        self, key: PRNGKeyArray, index: Int[Array, " b"], patch_mask: Bool[Array, "b n"], grid: tuple[int, ...] = ()
    ) -> Int[Array, "b k"]:
        """Draws the patches that are kept, for each example alone.

        Args:
            key: of the step and the view.
            index: each example's row in the global batch.
            patch_mask: the valid patches; no other one is kept.
            grid: the layout of the N patches, for maskings that need it.

        Returns:
            Ids i32 `[B, slots]`, unique and ascending in each row (a causal tower may read them in order); empty slots
            hold -1 and come last.

        Raises:
            UserError: this masking needs another grid.
        """
        patches = patch_mask.shape[-1]
        slots = self.slots(patches, grid)

        def draw(index: Int[Array, ""], valid: Bool[Array, " n"]) -> Int[Array, " k"]:
            order, count = self.order(jax.random.fold_in(key, index), valid, grid)
            ids = jnp.sort(jnp.where(jnp.arange(slots) < count, jnp.argsort(order)[:slots], patches))
            return jnp.where(ids < patches, ids, EMPTY).astype(jnp.int32)

        return jax.vmap(draw)(index, patch_mask)


@dataclass(frozen=True)
class Keep(PatchMasking):
    """Keeps a random part of each example's patches, each as likely as any other (MAE, arXiv:2111.06377; FLIP).

    Attributes:
        share: the part that stays, in (0, 1]; `ceil(share * valid patches)` patches of each example.
        most: the largest number that stays, whatever the share. Where examples differ in length, few are as long as
            the longest, for which the encoder would else compute on every row of the batch. None: any number.
    """

    share: float
    most: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(
                f"{type(self).__name__}(share={self.share}): the share of patches that stay must be above 0 and at "
                "most 1"
            )
        if self.most is not None and self.most < 1:
            raise UserError(
                f"{type(self).__name__}(most={self.most}): the number of patches that stay must be at least 1; None "
                "allows any"
            )

    def __repr__(self) -> str:
        """As the call that makes it, without `most` where there is none: keys are made from it (`View.text`)."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        said = [f"{name}={value!r}" for name, value in values.items() if (name, value) != ("most", None)]
        return f"{type(self).__name__}({', '.join(said)})"

    def count(self, patches: int) -> int:
        """The number of patches kept of `patches`."""
        share = math.ceil(self.share * patches - 1e-9)  # 0.1 * 30 is 3.0000000000000004: that must give 3, not 4
        return share if self.most is None else min(share, self.most)

    def slots(self, patches: int, grid: tuple[int, ...]) -> int:
        del grid
        return self.count(patches)

    def order(
        self, key: PRNGKeyArray, valid: Bool[Array, " n"], grid: tuple[int, ...]
    ) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        noise = jax.random.uniform(key, valid.shape, jnp.float32)
        return jnp.where(valid, noise, jnp.inf), _table(self.count, len(valid))[valid.sum()]


@dataclass(frozen=True, repr=False)
class KeepOutsideBlocks(Keep):
    """Hides rectangles of neighbouring patches, and keeps those outside (BEiT: Bao et al. 2021, arXiv:2106.08254).

    Rectangles are drawn one after another: their area uniformly between `smallest` and the number still to be hidden,
    the logarithm of their aspect uniformly too, then their place. One counts if it is smaller than the grid both ways
    and hides between one patch more and as many as are still to be hidden. After ten in a row that don't the rest is
    hidden patch by patch, at random: BEiT's code hides fewer then, here the count is exact.

    Attributes:
        share: as in `Keep`; BEiT and FLAVA (Singh et al. 2021, arXiv:2112.04482) keep 121 of 14 x 14 patches.
        smallest: area from which a rectangle's is drawn, in patches.
        aspect: height by width lies between this and its inverse; in (0, 1].
    """

    smallest: int = 16
    aspect: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smallest < 1 or not 0 < self.aspect <= 1:
            raise UserError(
                f"KeepOutsideBlocks(smallest={self.smallest}, aspect={self.aspect}): smallest must be at least 1 "
                "patch, and aspect above 0 and at most 1"
            )

    def slots(self, patches: int, grid: tuple[int, ...]) -> int:
        _check_grid(type(self).__name__, "rows and columns", patches, grid)
        return self.count(patches)

    def order(
        self, key: PRNGKeyArray, valid: Bool[Array, " n"], grid: tuple[int, ...]
    ) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        each, blocks = jax.random.split(key)
        noise, stay = super().order(each, valid, grid)
        hidden = self._blocks(blocks, valid.reshape(grid), valid.sum() - stay).reshape(-1)
        return jnp.where(hidden, 1 + noise, noise), stay  # where blocks hide too few, these are the last of the others

    def _blocks(self, key: PRNGKeyArray, valid: Bool[Array, "r c"], wanted: Int[Array, ""]) -> Bool[Array, "r c"]:
        """At most `wanted` valid patches, in rectangles."""
        rows, columns = valid.shape
        row, column = jnp.arange(rows)[:, None], jnp.arange(columns)
        log_aspect = math.log(self.aspect)

        def unfinished(state: tuple[Bool[Array, "r c"], Int[Array, ""], Int[Array, ""]]) -> Bool[Array, ""]:
            hidden, _, failures = state
            return (hidden.sum() < wanted) & (failures < TRIES)

        def attempt(
            state: tuple[Bool[Array, "r c"], Int[Array, ""], Int[Array, ""]],
        ) -> tuple[Bool[Array, "r c"], Int[Array, ""], Int[Array, ""]]:
            hidden, number, failures = state
            left = wanted - hidden.sum()
            size, shape, down, right = jax.random.uniform(jax.random.fold_in(key, number), (4,), jnp.float32)
            area = self.smallest + (left - self.smallest) * size
            ratio = jnp.exp(log_aspect * (1 - 2 * shape))
            height, width = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
            top, start = jnp.floor(down * (rows - height + 1)), jnp.floor(right * (columns - width + 1))
            inside = (row >= top) & (row < top + height) & (column >= start) & (column < start + width)
            more = inside & valid & ~hidden
            fits = (height < rows) & (width < columns) & (more.sum() > 0) & (more.sum() <= left)
            return hidden | (more & fits), number + 1, jnp.where(fits, 0, failures + 1)

        start = jnp.zeros(valid.shape, bool), jnp.int32(0), jnp.int32(0)
        return jax.lax.while_loop(unfinished, attempt, start)[0]


@dataclass(frozen=True)
class KeepOutsideBands(PatchMasking):
    """Hides whole times and whole bands of a spectrogram, and keeps the patches where neither is hidden (AudioMAE's
    fine-tuning: Huang et al. 2022, arXiv:2207.06405).

    Of T times `floor(T * (1 - time))` stay, of F bands `floor(F * (1 - frequency))`, and at least one where there is
    any: on 64 x 8 patches both 0.2 keep 51 x 6. A time that holds no valid patch isn't counted among the T; of one
    that holds some, the others don't stay.

    Attributes:
        time: the part of the times that is hidden, in [0, 1).
        frequency: the part of the bands that is hidden, in [0, 1).
    """

    time: float = 0.2
    frequency: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.time < 1 and 0 <= self.frequency < 1):
            raise UserError(
                f"KeepOutsideBands(time={self.time}, frequency={self.frequency}): the parts that are hidden must be at "
                "least 0 and below 1"
            )

    def slots(self, patches: int, grid: tuple[int, ...]) -> int:
        _check_grid(type(self).__name__, "times and bands", patches, grid)
        return _left(self.time)(grid[0]) * _left(self.frequency)(grid[1])

    def order(
        self, key: PRNGKeyArray, valid: Bool[Array, " n"], grid: tuple[int, ...]
    ) -> tuple[Float[Array, " n"], Int[Array, ""]]:
        there = valid.reshape(grid)
        keys = jax.random.split(key)
        times = _some(keys[0], there.any(axis=1), _left(self.time))
        bands = _some(keys[1], there.any(axis=0), _left(self.frequency))
        stays = (there & times[:, None] & bands).reshape(-1)
        return jnp.where(valid, jnp.where(stays, 0.0, 1.0), jnp.inf), stays.sum()


@dataclass(frozen=True, kw_only=True)
class Corrupt:
    """Hides a random part of each caption's tokens from the encoder (BERT, arXiv:1810.04805).

    Of the n tokens that may be chosen (in the mask, first_id <= id < vocab) `round(rate * n)` are, and at least one
    where there is any: an exact count with a floor of one, as in BERT's released code. Each chosen token then,
    independently, becomes the mask token, a random token, or stays.

    Attributes:
        vocab: number of ids; random tokens are drawn uniformly from [first_id, vocab).
        rate: the part of the tokens that is chosen.
        mask_id: the mask token's id.
        first_id: ids below it are special (padding, begin, end, mask, ...): never chosen, never drawn. Where they stand
            behind the words (CLIP's), `vocab` is the first of them.
        masked: the part of the chosen that becomes the mask token.
        random: the part of the chosen that becomes a random token.
        paired: further inputs; an example that has them all has `paired_rate` in the place of `rate` (BEiT-3: half of
            a picture's words, 15 % of a text alone: Wang et al. 2022, arXiv:2208.10442).
        paired_rate: that rate; None: there is one for all.
    """

    vocab: int
    rate: float = 0.15
    mask_id: int = 4
    first_id: int = 5
    masked: float = 0.8
    random: float = 0.1
    paired: tuple[str, ...] = ()
    paired_rate: float | None = None

    def __repr__(self) -> str:
        """As the call that makes it, without what is paired where nothing is: keys are made from it (`View.text`)."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        said = [f"{name}={value!r}" for name, value in values.items() if self.paired or not name.startswith("paired")]
        return f"Corrupt({', '.join(said)})"

    def __post_init__(self) -> None:
        for name in ("rate", "paired_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate <= 1:
                raise UserError(f"Corrupt({name}={rate}): the part of tokens chosen must be above 0 and at most 1")
        if bool(self.paired) != (self.paired_rate is not None):
            raise UserError(
                f"Corrupt(paired={self.paired}, paired_rate={self.paired_rate}): set both, the inputs and the rate of "
                "the examples that have them, or neither"
            )
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1 + 1e-9:
            raise UserError(
                f"Corrupt(masked={self.masked}, random={self.random}): both must be at least 0, and at most 1 together"
            )
        if not 0 <= self.mask_id < self.vocab or not 0 <= self.first_id < self.vocab:
            raise UserError(
                f"Corrupt(vocab={self.vocab}, mask_id={self.mask_id}, first_id={self.first_id}): mask_id and first_id "
                f"must be ids of the vocabulary, 0 to {self.vocab - 1}"
            )

    def check_ids(self, path: str, tower: str, pieces: int, vocabulary: int | None) -> None:
        """Raises UserError where the ids that it draws and names aren't those of the texts.

        path: of the objective. tower: of the tower that reads them, and its `vocabulary`; None: it reads no ids.
        pieces: the largest number of ids that the tokenizer may have.
        """
        if vocabulary is None:
            raise UserError(f"{path} corrupts what {tower} reads; only tokens of text can be (use Keep)")
        if not pieces <= self.vocab <= vocabulary:
            raise UserError(
                f"{path} names tokens out of vocab={self.vocab}, but the tokenizer has up to {pieces} pieces and "
                f"{tower}.vocab={vocabulary}: set it to {vocabulary} too"
            )

    def count(self, tokens: int) -> int:
        """The largest number of tokens chosen of `tokens` that may be."""
        return max(_chosen(tokens, self.rate), _chosen(tokens, self.paired_rate or self.rate))

    def draw(
        self,
        key: PRNGKeyArray,
        index: Int[Array, " b"],
        ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        paired: Bool[Array, " b"] | None = None,
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """Returns the ids that the encoder reads, and a mask of the chosen positions; drawn for each example alone.

        paired: the examples that have the inputs `paired`; None: none has.
        """
        rates = jnp.stack(
            [_table(partial(_chosen, rate=rate), ids.shape[-1]) for rate in (self.rate, self.paired_rate or self.rate)]
        )
        paired = jnp.zeros(len(ids), bool) if paired is None else paired

        def draw(
            index: Int[Array, ""], ids: Int[Array, " l"], mask: Bool[Array, " l"], paired: Bool[Array, ""]
        ) -> tuple[Int[Array, " l"], Bool[Array, " l"]]:
            counts = rates[paired.astype(jnp.int32)]
            which, what, word = jax.random.split(jax.random.fold_in(key, index), 3)
            maskable = mask & (ids >= self.first_id) & (ids < self.vocab)
            noise = jnp.where(maskable, jax.random.uniform(which, ids.shape, jnp.float32), jnp.inf)
            chosen = maskable & (jnp.argsort(jnp.argsort(noise)) < counts[maskable.sum()])
            action = jax.random.uniform(what, ids.shape, jnp.float32)
            words = jax.random.randint(word, ids.shape, self.first_id, self.vocab, ids.dtype)
            seen = jnp.where(action < self.masked, self.mask_id, ids)
            seen = jnp.where((action >= self.masked) & (action < self.masked + self.random), words, seen)
            return jnp.where(chosen, seen, ids).astype(ids.dtype), chosen

        return jax.vmap(draw)(index, ids, mask, paired)


@dataclass(frozen=True)
class CorruptPatches:
    """Hides patches in their places: the encoder reads all of them, with the tower's mask token for each hidden one
    (BEiT: Bao et al. 2021, arXiv:2106.08254). The tower has `mask_token=True`.

    Attributes:
        keep: chooses those that are read as they are, of each example alone; `KeepOutsideBlocks(121 / 196)` hides
            BEiT's 75 of 14 x 14.
    """

    keep: Keep

    def check_ids(self, path: str, tower: str, pieces: int, vocabulary: int | None) -> None:
        """Nothing to check: it draws no ids (see `Corrupt`)."""

    def count(self, patches: int) -> int:
        """The number of patches hidden of `patches`."""
        return patches - self.keep.count(patches)

    def draw(
        self, key: PRNGKeyArray, index: Int[Array, " b"], patch_mask: Bool[Array, "b n"], grid: tuple[int, ...] = ()
    ) -> Bool[Array, "b n"]:
        """A mask of the hidden patches, drawn as `PatchMasking.draw` draws; none of them is padding.

        Raises:
            UserError: the masking needs another grid.
        """
        self.keep.slots(patch_mask.shape[-1], grid)  # which checks the grid

        def draw(index: Int[Array, ""], valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
            order, count = self.keep.order(jax.random.fold_in(key, index), valid, grid)
            return valid & (jnp.argsort(jnp.argsort(order)) >= count)

        return jax.vmap(draw)(index, patch_mask)


Masking = PatchMasking | Corrupt | CorruptPatches | CorruptRegions


def _chosen(tokens: int, rate: float) -> int:
    """The number of tokens chosen of `tokens` at a rate."""
    return min(tokens, max(1, round(rate * tokens)))


def _some(key: PRNGKeyArray, there: Bool[Array, " n"], count: Callable[[int], int]) -> Bool[Array, " n"]:
    """A random mask of `count` of the places that are `there`."""
    noise = jnp.where(there, jax.random.uniform(key, there.shape, jnp.float32), jnp.inf)
    return jnp.argsort(jnp.argsort(noise)) < _table(count, len(there))[there.sum()]


def _left(hidden: float) -> Callable[[int], int]:
    """Number of n that remain when the share `hidden` is removed: rounded down, at least 1 (as in AudioMAE's code)."""
    return lambda n: min(n, max(1, math.floor(n * (1 - hidden) + 1e-9)))  # 10 * (1 - 0.9) is 0.9999999999999998


def _check_grid(name: str, axes: str, patches: int, grid: tuple[int, ...]) -> None:
    if len(grid) != 2 or math.prod(grid) != patches:
        raise UserError(
            f"{name} needs patches in {axes}, and these {patches} lie in a grid of {grid}: use Keep, or patches that "
            "don't span a whole axis"
        )


def _table(count: Callable[[int], int], length: int) -> Int[Array, " n+1"]:
    """Lookup table of `count(0 .. length)`, computed on the host: fp32 ceil and round on the device are off by one."""
    return jnp.asarray(np.array([count(n) for n in range(length + 1)], np.int32))
