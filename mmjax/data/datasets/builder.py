"""The base of the builders of mmjax's own datasets.

A dataset `x` is a file `x.py` in this folder, or a folder `x` with a `builder.py`, that defines a subclass which TFDS
calls `x` (`SpokenEmoji` is `spoken_emoji`). Nothing else lists it: `prepare.builder` finds it by its name.
"""

import io
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from mmjax.data.datasets.build_progress import BuildProgress


@dataclass(eq=False)
class LanguagesConfig(tfds.core.BuilderConfig):
    """`languages`: those that texts (and speech) are in."""

    languages: tuple[str, ...] = ("en",)


class OwnBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds into ArrayRecord files, which are read by index without TensorFlow.

    A subclass has `VERSION`, `described`, `_split_generators` and `_generate_examples`; its file's docstring says what
    the dataset is.

    HOMEPAGE, LICENSE, CITATION: as TFDS shows them.
    needs: packages that building takes, of the extra `demo`; reading takes none.
    BUILT_BYTES: what a build takes on the disk while it runs, rounded up; 0: what TFDS knows of the dataset's size.
    """

    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    BUILT_BYTES: ClassVar[int] = 0

    def __init__(self, *, file_format: Any = None, **kwargs: Any) -> None:
        super().__init__(file_format=file_format or "array_record", **kwargs)

    def described(self) -> dict[str, Any]:
        """The features of an example besides its `id`.

        Sounds are `encoded()`: tfds.features.Audio can't be constructed without TensorFlow.
        """
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"id": tfds.features.Text(), **self.described()}),
            description=sys.modules[type(self).__module__].__doc__,
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of its config, which is a `LanguagesConfig`."""
        return self.builder_config.languages  # type: ignore[union-attr]


class PlannedBuilder(OwnBuilder, skip_registration=True):
    """Builds examples whose number is known before they are made, and shows how far it is.

    Its `_split_generators` tells the number to `self._progress.start`, its `_generate_examples` each example to
    `self._progress.advance`.
    """

    _progress: BuildProgress

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Builds the dataset, if it isn't built. Takes the arguments of TFDS's own method."""
        if self.data_path.exists():
            return
        tfds.display_progress_bar(False)  # BuildProgress shows the progress; TFDS would draw three more bars
        try:
            with BuildProgress(f"building {self.info.full_name}") as self._progress, redirect_stdout(io.StringIO()):
                super().download_and_prepare(**kwargs)
        finally:
            tfds.display_progress_bar(True)


def encoded() -> Any:
    """The feature of a file's bytes."""
    return tfds.features.Text()


def png_of(side: int) -> Any:
    """The feature of a square picture."""
    return tfds.features.Image(shape=(side, side, 3), encoding_format="png")
