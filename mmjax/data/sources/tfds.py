"""A dataset of TensorFlow Datasets, as a source."""

from dataclasses import dataclass, field, replace

from mmjax.data.datasets.prepare import readable
from mmjax.data.sources.contract import Source
from mmjax.data.sources.tfds_records import TfdsRecords


@dataclass(frozen=True)
class Tfds(Source):
    """A TensorFlow Datasets dataset, prepared in a random-access format. TensorFlow is not needed.

    `name` is TFDS's ("spoken_emoji/multilingual:1.0.0"; configuration and version may be left out). A dataset that
    isn't built yet is built, if it can be. `fields` maps a modality or column to a feature, with "/" into nested ones
    (`{"audio": "speech/audio"}`), where the features aren't named image, text, audio (or speech) and video. `splits`
    translates a split's name (`{"validation": "train[95%:]"}`).
    """

    name: str
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    data_dir: str | None = None

    def open(self, split: str, data_dir: str | None = None) -> TfdsRecords:
        """Opens a split, building the dataset first if need be.

        Raises `SplitNotFoundError`; UserError where a field isn't in the dataset, or its files allow no random access.
        """
        return TfdsRecords(self, split, self.data_dir or data_dir)

    def places(self) -> dict[str, str]:
        """Its folder of datasets."""
        return {} if self.data_dir is None else {"data_dir": self.data_dir}

    def to_build(self) -> str | None:
        """`mmjax prepare`, where the dataset isn't in its `data_dir`."""
        if self.data_dir is None or readable(self.name, self.data_dir):
            return None
        return f"mmjax prepare {self.name} --data-dir {self.data_dir}"

    def at(self, data_dir: str) -> "Tfds":
        """The dataset of another folder."""
        return replace(self, data_dir=data_dir)
