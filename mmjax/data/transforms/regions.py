"""Regions of a picture: those that a detector found, as they are stored, or the cells of a grid over it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng, Spec, Transform
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.labels import NONE
from mmjax.data.transforms.values import Cut, Labelled, Masked, prefix_mask
from mmjax.errors import UserError

BOX = 4  # numbers of a box: its left, upper, right and lower edge, as parts of the picture's width and height
CONFIDENCE = "_confidence"  # after a class's name: the entry of how sure the detector is of it
MOST_OFF = 1e-2  # by which a distribution's sum may differ from 1: they are often stored in 16 bits
MOMENTS = 6  # of a cell's pixels: mean and standard deviation of red, green and blue
WHITE = 255


@dataclass(frozen=True)
class GatherRegions(RecordTransform):
    """Makes the input `to`, for `ReadRegions`, of columns of arrays. A record without features has no such input.

    of: the columns, which are called as `ReadRegions` calls them: `features` and `boxes`, each class and, where
        there is one, its confidence (`Renamed` gives others these names).
    """

    of: tuple[str, ...] = ("features", "boxes")
    to: str = "regions"

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        there = {name: record[name] for name in self.of if record.get(name) is not None}
        return {**record, self.to: there if "features" in there else None}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, self.to) if "features" in before and self.to not in before else before


@dataclass(frozen=True)
class ReadRegions(Transform):
    """Reads a detector's regions of a picture: float32 `[most, features + 4]`, each region's features and its box
    (left, upper, right, lower edge, in [0, 1]), with a mask of the real ones.

    A picture's regions are a dict of arrays (`GatherRegions` makes one of columns): `features` `[n, features]`, `boxes`
    `[n, 4]`, and what the fields name; or one array `[n, features + 4]` where they name nothing. Detectors give the
    surest first, so of more than `most` the first stay.

    Attributes:
        features: the size of a region's features.
        most: the number of regions of a picture.
        classes: the number of classes of each label, `{"objects": 1_600}`: numbers `[n]`, -1 for none. They become
            labels of the entry, int32 `[most]`, with `<name>_confidence`, float32 `[most]`: 1 where the data has none.
        distributions: the number of classes of each distribution over them, `[n, classes]`, whose rows sum to 1. They
            become labels of the entry, float32 `[most, classes]`.

    Raises UserError where a size isn't at least 1.
    """

    features: int
    most: int
    classes: Mapping[str, int] = field(default_factory=dict)
    distributions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {"features": self.features, "most": self.most, **self.classes, **self.distributions}
        for name, size in sizes.items():
            if size < 1:
                raise UserError(f"ReadRegions({name}={size}): it must be a whole number, at least 1")

    def __call__(self, value: Any, rng: Rng) -> Labelled:
        del rng
        found = value if isinstance(value, Mapping) else self._packed(value)
        features = self._floats(found, "features", (self.features,))
        count = len(features)
        if not count:
            raise BadExample("the picture has no regions", "empty")
        boxes = self._floats(found, "boxes", (BOX,), count)
        if ((boxes < 0) | (boxes > 1)).any() or (boxes[:, :2] > boxes[:, 2:]).any():
            raise BadExample(
                "a box isn't (left, upper, right, lower) as parts, from 0 to 1, of the picture's width and height",
                "unfit",
            )
        labels: dict[str, np.ndarray] = {}
        for name, classes in self.classes.items():
            labels[name] = self._filled(self._numbers(found, name, classes, count), NONE)
            sure = np.ones(count, np.float32)
            if (told := name + CONFIDENCE) in found:
                sure = self._floats(found, told, (), count)
            labels[told] = self._filled(sure, 0)
        for name, classes in self.distributions.items():
            shares = self._floats(found, name, (classes,), count)
            if (shares < 0).any() or np.abs(shares.sum(axis=1) - 1).max() > MOST_OFF:
                raise BadExample(
                    f"a row of {name} is no distribution: its sum has to be 1, and nothing below 0", "unfit"
                )
            labels[name] = self._filled(shares, 0)
        rows, mask = np.concatenate([features, boxes], axis=1), prefix_mask(self.most, min(count, self.most))
        filled = self._filled(rows, 0)
        return Labelled(Cut(filled, mask, count) if count > self.most else Masked(filled, mask), labels)

    def spec(self, before: Spec | None) -> Spec:
        labels: list[tuple[str, tuple[int, ...], str]] = []
        for name in self.classes:
            labels += [(name, (self.most,), "int32"), (name + CONFIDENCE, (self.most,), "float32")]
        labels += [(name, (self.most, classes), "float32") for name, classes in self.distributions.items()]
        return Spec((self.most, self.features + BOX), "float32", masked=True, labels=tuple(labels))

    def _packed(self, value: Any) -> dict[str, Any]:
        rows = np.asarray(value)
        if rows.ndim != 2 or rows.shape[1] != self.features + BOX:
            raise BadExample(
                f"the regions are neither a dict with features and boxes nor an array [n, {self.features + BOX}]",
                "unfit",
            )
        return {"features": rows[:, : self.features], "boxes": rows[:, self.features :]}

    def _floats(
        self, found: Mapping[str, Any], name: str, shape: tuple[int, ...], count: int | None = None
    ) -> Float32[np.ndarray, "n *s"]:
        """A column of the regions. Raises `BadExample` where it is missing, of another shape, or not finite."""
        values = self._column(found, name, shape, count)
        if values.dtype.kind not in "fiu":
            raise BadExample(f"{name} of the regions are no numbers but {values.dtype}", "undecodable")
        if not np.isfinite(values).all():
            raise BadExample(f"{name} of the regions have numbers that aren't finite", "not_finite")
        return values.astype(np.float32)

    def _numbers(self, found: Mapping[str, Any], name: str, classes: int, count: int) -> Int32[np.ndarray, " n"]:
        values = self._column(found, name, (), count)
        if values.dtype.kind not in "iu" or ((values < NONE) | (values >= classes)).any():
            raise BadExample(f"{name} of the regions are no numbers of classes, -1 or 0 to {classes - 1}", "unfit")
        return values.astype(np.int32)

    def _column(self, found: Mapping[str, Any], name: str, shape: tuple[int, ...], count: int | None) -> np.ndarray:
        if name not in found:
            raise BadExample(f"the regions have no {name}; they have {', '.join(found) or 'nothing'}", "unfit")
        values = np.asarray(found[name])
        if values.shape[1:] != shape or values.ndim != 1 + len(shape) or (count is not None and len(values) != count):
            wanted = ", ".join(map(str, ("n" if count is None else count, *shape)))
            raise BadExample(f"{name} of the regions are {list(values.shape)}, and not [{wanted}]", "unfit")
        return values

    def _filled(self, values: np.ndarray, padding: float) -> np.ndarray:
        """`most` rows: the first ones, and padding behind them."""
        filled = np.full((self.most, *values.shape[1:]), padding, values.dtype)
        filled[: len(values)] = values[: self.most]
        return filled


@dataclass(frozen=True)
class GridRegions(Transform):
    """Cuts a picture into the cells of a grid, which stand in for a detector's regions where there is no detector:
    float32 `[rows * columns, 6 + 4]`, the mean and standard deviation of each cell's red, green and blue (in [0, 1]),
    and its box, with a mask that is True throughout.

    So a region tells colours and their spread, and no object. Labels, for objectives that predict what a detector says:
    `colours`, float32 `[N, levels**3]`, which share of the cell's pixels has each of so many colours; `colour`, int32
    `[N]`, the most frequent one, and `colour_confidence`, float32 `[N]`, its share.

    Attributes:
        rows, columns: of the grid.
        levels: into how many equal ranges each of red, green and blue is cut.

    Raises UserError where one isn't at least 1.
    """

    rows: int = 4
    columns: int = 4
    levels: int = 3

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "levels"):
            if getattr(self, name) < 1:
                raise UserError(f"GridRegions({name}={getattr(self, name)}): it must be a whole number, at least 1")

    def __call__(self, value: Any, rng: Rng) -> Labelled:
        del rng
        pixels = np.asarray(value)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UserError(
                f"GridRegions cuts pictures uint8[H, W, 3], and was given {pixels.dtype}{list(pixels.shape)}: let "
                "Decode() and Resize(size) stand before it"
            )
        if pixels.shape[0] < self.rows or pixels.shape[1] < self.columns:
            raise BadExample(f"a picture of {pixels.shape[:2]} pixels has no {self.rows}x{self.columns} cells", "unfit")
        tops, lefts = (np.arange(n + 1) * size // n for n, size in
                       ((self.rows, pixels.shape[0]), (self.columns, pixels.shape[1])))  # fmt: skip
        cells, boxes, shares = [], [], []
        for row in range(self.rows):
            for column in range(self.columns):
                cell = pixels[tops[row] : tops[row + 1], lefts[column] : lefts[column + 1]].reshape(-1, 3)
                cells.append(np.concatenate([cell.mean(axis=0), cell.std(axis=0)]) / WHITE)
                edges = (lefts[column], tops[row], lefts[column + 1], tops[row + 1])
                boxes.append(np.array(edges) / np.array([pixels.shape[1], pixels.shape[0]] * 2))
                level = cell.astype(np.int32) * self.levels // (WHITE + 1)
                colour = (level * np.array([self.levels**2, self.levels, 1])).sum(axis=1)
                shares.append(np.bincount(colour, minlength=self.levels**3) / len(cell))
        filled = np.concatenate([cells, boxes], axis=1).astype(np.float32)
        colours = np.stack(shares).astype(np.float32)
        labels = {
            "colours": colours,
            "colour": colours.argmax(axis=1).astype(np.int32),
            f"colour{CONFIDENCE}": colours.max(axis=1),
        }
        return Labelled(Masked(filled, np.ones(len(filled), bool)), labels)

    def spec(self, before: Spec | None) -> Spec:
        count = self.rows * self.columns
        colours = ("colours", (count, self.levels**3), "float32")
        labels = (colours, ("colour", (count,), "int32"), (f"colour{CONFIDENCE}", (count,), "float32"))
        return Spec((count, MOMENTS + BOX), "float32", masked=True, labels=labels, kind=PictureInput)
