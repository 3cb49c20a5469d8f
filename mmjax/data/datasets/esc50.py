"""`esc50`: 2,000 sounds of 50 kinds in 5 folds (Piczak 2015, doi:10.1145/2733373.2806390), as a TFDS builder.

Downloads its authors' archive, 0.6 GB. CC BY-NC 3.0. It needs no TensorFlow.
"""

import csv
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.units import Size

from mmjax.data.datasets.builder import OwnBuilder, encoded
from mmjax.errors import UserError

# A commit, not a branch: the archive can't change under its name.
COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
ARCHIVE = f"https://github.com/karolpiczak/ESC-50/archive/{COMMIT}.zip"
SIZE, SHA256 = Size(645_832_161), "661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f"
CLASSES = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind", "pouring_water"),
    *("toilet_flush", "thunderstorm", "crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps"),
    *("laughing", "brushing_teeth", "snoring", "drinking_sipping", "door_wood_knock", "mouse_click"),
    *("keyboard_typing", "door_wood_creaks", "can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm"),
    *("clock_tick", "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn", "engine", "train"),
    *("church_bells", "airplane", "fireworks", "hand_saw"),
)


class Esc50(OwnBuilder):
    """Sounds of 5 s with their kind; one split, whose folds 1 to 5 take turns as the test set."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "The archive of ESC-50 at the commit in COMMIT."}
    url_infos = {ARCHIVE: UrlInfo(size=SIZE, checksum=SHA256, filename=f"ESC-50-{COMMIT}.zip")}  # TFDS checks it
    BUILT_BYTES = 2_000_000_000  # the archive, the sounds in it, and the dataset, rounded up

    HOMEPAGE = "https://github.com/karolpiczak/ESC-50"
    LICENSE = "CC BY-NC 3.0"
    CITATION = "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015."

    def described(self) -> dict[str, Any]:
        label = tfds.features.ClassLabel(names=list(CLASSES))
        return {"audio": encoded(), "label": label, "fold": np.int64, "esc10": np.bool_}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        return {"train": self._generate_examples(Path(os.fspath(dl_manager.download(ARCHIVE))))}

    def _generate_examples(self, archive: Path) -> Iterator[tuple[str, Any]]:
        # The archive is read without unpacking, so no name in it can lead out of a folder.
        with zipfile.ZipFile(archive) as files:
            found = {_inside(name): name for name in files.namelist()}
            if "meta/esc50.csv" not in found:
                raise UserError(f"{archive} isn't the archive of ESC-50: it has no meta/esc50.csv")
            rows = csv.DictReader(files.read(found["meta/esc50.csv"]).decode("utf-8").splitlines())
            for row in rows:
                name = f"audio/{row['filename']}"
                if name not in found:
                    raise UserError(f"{archive} names {row['filename']} in meta/esc50.csv, but has no {name}")
                yield (
                    row["filename"],
                    {
                        "id": row["filename"],
                        "audio": files.read(found[name]),
                        "label": row["category"],
                        "fold": int(row["fold"]),
                        "esc10": row["esc10"] == "True",
                    },
                )


def _inside(name: str) -> str:
    """A member's name without the folder that the archive is in."""
    return name.partition("/")[2]
