"""Small data of the tests' own: pictures of one colour, tones, a folder with a table, a TFDS dataset."""

import csv
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data.bad_example import KINDS, BadExample
from mmjax.data.transforms.contract import Transform

RATE = 16_000


def picture_bytes(
    colour: tuple[int, ...], size: tuple[int, int] = (12, 12), mode: str = "RGB", format: str = "PNG"
) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, format)
    return stream.getvalue()


def tone(hertz: float, seconds: float = 0.02, rate: int = RATE) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def sound_bytes(wave: np.ndarray, rate: int = RATE, format: str = "FLAC", subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate, format=format, subtype=subtype)
    return stream.getvalue()


def kind_of(transform: Transform, value: Any) -> str | None:
    """What is wrong with a value, None where it can be used."""
    try:
        transform(value, None)
    except BadExample as bad:
        return KINDS[pickle.loads(pickle.dumps(bad)).code - 1]  # as it comes from another process
    return None


def write_folder(root: Path, count: int = 40) -> Path:
    """A table of `count` rows with a picture, a caption, a sound and a label; row i's picture is grey of level i."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "text", "audio", "kind", "split"])
        for i in range(count):
            (root / f"{i}.png").write_bytes(picture_bytes((i, i, i)))
            (root / f"{i}.flac").write_bytes(sound_bytes(tone(200 + 20 * i)))
            split = "test" if i % 8 == 7 else "train"
            table.writerow(
                [f"{i}.png", f"a grey square of level {i}", f"{i}.flac", "even" if i % 2 == 0 else "odd", split]
            )
    return root / "captions.csv"


@pytest.fixture(scope="session")
def folder_table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("folder")))


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data_dir with the dataset `toy`, laid out as spoken_emoji is: 24 training and 6 test examples."""
    import tensorflow_datasets as tfds
    from etils import epath

    class Toy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = epath.Path(__file__).parent  # where TFDS would look for a description of the dataset
        url_infos = {}  # nothing is downloaded

        def _info(self) -> tfds.core.DatasetInfo:
            text = tfds.features.Text
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "id": text(),
                        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                        "text": text(),
                        "names": {"de": text(), "en": text()},
                        "group": text(),
                        "number": np.int64,
                        "speech": tfds.features.Sequence({"audio": text(), "voice": text()}),
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(0, 24), "test": self._generate_examples(24, 30)}

        def _generate_examples(self, start: int, stop: int):  # type: ignore[override]
            for i in range(start, stop):
                yield (
                    i,
                    {
                        "id": f"toy-{i}",
                        "image": io.BytesIO(picture_bytes((i, 0, 0))),
                        "text": f"toy number {i}",
                        "names": {"de": f"Spielzeug {i}", "en": f"toy number {i}"},
                        "group": "low" if i < 12 else "high",
                        "number": i,
                        "speech": [{"audio": sound_bytes(tone(300 + 100 * v + i)), "voice": f"v{v}"} for v in range(2)],
                    },
                )

    folder = str(tmp_path_factory.mktemp("tfds"))
    builder = Toy(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder
