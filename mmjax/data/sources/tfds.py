"""A dataset of TensorFlow Datasets, as a source."""

from dataclasses import dataclass, field

from mmjax.data.sources.tfds_records import TfdsRecords


@dataclass(frozen=True)
class Tfds:
    """A TensorFlow Datasets dataset, prepared in a random-access format. TensorFlow is not needed.

    `name` is TFDS's ("spoken_emoji/multilingual:1.0.0"; configuration and version may be left out). A dataset that
    isn't built yet is built, if it can be. `fields` says which feature is which modality or column, with "/" into
    nested ones (`{"audio": "speech/audio"}`), where they aren't named image, text and audio (or speech).
    `splits` translates a split's name (`{"validation": "train[95%:]"}`).
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
