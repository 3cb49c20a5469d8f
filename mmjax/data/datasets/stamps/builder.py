"""`stamps`: some 950 pictures of Tux Paint with captions in many languages, read aloud by people, as a TFDS builder.

It is made of a Debian package's folder, which its user fetches (GPL-2 and other free licences). It needs no TensorFlow.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.datasets.build_progress import BuildProgress
from mmjax.data.datasets.builder import LanguagesConfig, OwnBuilder, encoded, png_of
from mmjax.data.datasets.stamps.catalogue import LANGUAGES, Stamp, catalogue
from mmjax.data.datasets.stamps.groups import SPLITS, groups, split_of
from mmjax.data.datasets.stamps.picture import IMAGE_SIZE, draw, png

FETCH = "apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps"
PLACES = ("stamps/usr/share/tuxpaint/stamps", "stamps")  # within TFDS's folder of manual downloads


class Stamps(OwnBuilder):
    """Stamps as picture, caption, the caption read aloud, sound effect and category.

    A stamp without a caption in the config's first language is left out. `text` is the caption in it (English for
    `all`), `captions` those of all its languages ("" where
    there is none), `speech` recordings, of which there may be none, `sound` one effect or none. Variants of a stamp
    share a split, so captions repeat within one: retrieval must take every row of the same `text` as right.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Debian's tuxpaint-stamps-default 2022.06.04."}
    BUILDER_CONFIGS = [
        *(
            LanguagesConfig(name=language, description=f"Captions and speech: {language}.", languages=(language,))
            for language in LANGUAGES
        ),
        LanguagesConfig(name="all", description=f"All {len(LANGUAGES)} languages.", languages=LANGUAGES),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"on Debian, Ubuntu or Colab make that folder, go there and run `{FETCH}` (161 MB; it needs no root)"
    )
    needs = ("resvg_py",)
    BUILT_BYTES = 400_000_000

    HOMEPAGE = "https://tuxpaint.org/stamps/"
    LICENSE = "GPL-2 and other free licences; see the package's copyright file"

    def described(self) -> dict[str, Any]:
        return {
            "image": png_of(IMAGE_SIZE),
            "text": tfds.features.Text(),
            "captions": {language: tfds.features.Text() for language in self.languages},
            "category": tfds.features.Text(),
            "speech": tfds.features.Sequence({"audio": encoded(), "language": tfds.features.Text()}),
            "sound": tfds.features.Sequence({"audio": encoded()}),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        stamps = catalogue(_root(Path(os.fspath(dl_manager.manual_dir))))
        drawn = {}
        with BuildProgress(f"drawing {self.info.full_name}") as progress:
            progress.start(len(stamps))
            for stamp in stamps:  # all stamps in every config: the splits are the same in each
                drawn[stamp.id] = draw(stamp.picture)
                progress.advance()
        pictures = {id: picture for id, picture in drawn.items() if picture is not None}
        stamps = [stamp for stamp in stamps if stamp.id in pictures]
        split = {id: split_of(group) for id, group in groups(stamps, pictures).items()}
        first, *_ = self.languages
        stamps = [stamp for stamp in stamps if first in stamp.captions]
        return {name: self._generate_examples([s for s in stamps if split[s.id] == name], pictures) for name in SPLITS}

    def _generate_examples(self, stamps: list[Stamp], pictures: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        languages = self.languages
        for stamp in stamps:
            recordings = [(file, language) for language in languages for file in stamp.speech.get(language, ())]
            yield (
                stamp.id,
                {
                    "id": stamp.id,
                    "image": png(pictures[stamp.id]),
                    "text": stamp.captions[languages[0]],
                    "captions": {language: stamp.captions.get(language, "") for language in languages},
                    "category": stamp.category,
                    "speech": [{"audio": file.read_bytes(), "language": language} for file, language in recordings],
                    "sound": [{"audio": stamp.sound.read_bytes()}] if stamp.sound else [],
                },
            )


def _root(manual: Path) -> Path:
    """The folder of the stamps. Raises AssertionError, as TFDS does, where there is none."""
    for place in PLACES:
        if any((manual / place).glob("[!.]*/**/*.txt")):
            return manual / place
    raise AssertionError(f"there are no stamps in {manual / 'stamps'}: {Stamps.MANUAL_DOWNLOAD_INSTRUCTIONS}")
