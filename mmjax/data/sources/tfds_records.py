"""The records of a TFDS dataset: plain values by modality, for a source `tfds.Tfds`."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from mmjax.data.datasets.prepare import is_ours, prepare_dataset
from mmjax.data.datasets.without_tensorflow import rates
from mmjax.data.sources.cells import filled_cell, label, with_class
from mmjax.data.sources.contract import MEDIA, MODALITIES, Records
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError, nearest

if TYPE_CHECKING:
    from mmjax.data.sources.tfds import Tfds


class TfdsRecords(Records):
    """A split of a TFDS dataset. One that gives its examples ids knows which are others, also where two look alike."""

    tells_apart = True

    def __init__(self, source: "Tfds", split: str, data_dir: str | None):
        import tensorflow_datasets as tfds  # takes half a second, which a Folder needn't wait

        self._arguments = (source, split, data_dir)
        self._split = split
        builder = _builder(source.name, data_dir)
        name = source.splits.get(split, split)
        if name.partition("[")[0] not in builder.info.splits:
            raise SplitNotFoundError(
                f"{source.name!r} has no split {name!r}, it has {', '.join(builder.info.splits)}"
                f" (splits={{{split!r}: ...}} says which is to be taken)"
            )
        base = builder.info.splits[name.partition("[")[0]]
        self._dataset = f"{builder.info.full_name}, {name}"
        self._files = of_text(f"{base.num_examples} {list(base.shard_lengths)} {int(base.num_bytes)}")
        features = builder.info.features
        assert features is not None
        self._paths = _field_paths(source, features)
        # Pictures stay encoded bytes: they are decoded by the transforms, and decoding here may need TensorFlow.
        decoders = {
            key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], tfds.features.Image)
        }
        try:
            self._data: Any = builder.as_data_source(split=name, decoders=decoders or None)
        except NotImplementedError as error:
            raise UserError(
                f"{source.name!r} was prepared in a format without random access: prepare it again with "
                f"download_and_prepare(file_format='array_record')"
            ) from error
        taken = {path.partition("/")[0] for path in self._paths.values()}
        # Sorted, since TFDS gives the features of a dataset read back in another order in every process.
        others = [key for key in sorted(features) if key not in taken and key not in ("id", *self._paths)]
        self._labels = [key for key in others if "audio" not in _keys(features[key])]  # other recordings aren't labels
        self.columns = tuple(dict.fromkeys(("id", *self._paths, *self._labels)))
        # The names of a column's class numbers, in order.
        self.class_names = {
            key: tuple(features[key].names)
            for key in self._labels
            if isinstance(features[key], tfds.features.ClassLabel) and features[key].names
        }
        self._classes = {key for key in self._labels if isinstance(_inside(features[key]), tfds.features.ClassLabel)}
        self._spoken = _spoken(source, features, self._paths.get("text"))
        self.media: tuple[str, ...] = tuple(
            modality for modality, path in self._paths.items() if _is_media(modality, features, path)
        )
        known, described = rates(builder.data_path), dict(features.items())
        each = {
            m: known.get(path) or getattr(described.get(path), "sample_rate", None) for m, path in self._paths.items()
        }
        self._rates = {modality: int(rate) for modality, rate in each.items() if rate is not None}

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._data[index]
        example = {m: _kept(_plain(_reach(record, path), m in self.media)) for m, path in self._paths.items()}
        for column in self._labels:
            value = _plain(record[column])
            example[column] = label(with_class(value) if column in self._classes else value)
        if self._spoken:
            example["text"] = _named(with_class(example["text"]), self._spoken)
        example |= {modality: _sound(example[modality], rate) for modality, rate in self._rates.items()}
        own = example["id"] if "id" in self._paths else _plain(record["id"]) if "id" in record else None
        example["id"] = f"{self._split}/{index}" if filled_cell(own) is None else own
        return example

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of examples, the dataset with its version, and the checksums of its files: reading every example
        would take as long as an epoch, whichever `columns` are asked for.
        """
        return {"rows": len(self), "dataset": self._dataset, "files": self._files}

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsRecords, self._arguments


def _builder(name: str, data_dir: str | None) -> Any:
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if is_ours(name) and ":" not in name:  # the version of our builder, even if an older one is on the disk
        return read_only_builder.builder_from_directory(prepare_dataset(name, data_dir))
    try:  # a built dataset can be read without the code that built it
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (DatasetNotFoundError, ImportError):  # it isn't built, or its description needs TensorFlow
        return read_only_builder.builder_from_directory(prepare_dataset(name, data_dir))


def _field_paths(source: "Tfds", features: Mapping[str, Any]) -> dict[str, str]:
    """The feature of each modality, as a path with "/"."""
    usual = {name: name for name in MODALITIES}
    usual["audio"] = "audio" if "audio" in features else "speech"
    wanted = {modality: feature for modality, feature in usual.items() if feature in features} | source.fields
    if not wanted:
        raise UserError(
            f"{source.name!r} has no feature named image, text, audio, speech or video, but "
            f"{', '.join(sorted(features))}: say which is which, Tfds({source.name!r}, fields={{'image': ...}})"
        )
    paths = {}
    for modality, path in wanted.items():
        inside: Any = features
        parts = path.split("/")
        for part in parts:
            if part not in _keys(inside):
                known = _keys(inside)
                raise UserError(
                    f"Tfds({source.name!r}, fields={{{modality!r}: {path!r}}}): there is no {part!r} among "
                    f"{', '.join(known) or 'no features'}{nearest(part, known)}"
                )
            inside = _inside(inside)[part]
        if modality in _keys(inside):  # a sequence of {audio, voice} stands for its audio
            parts.append(modality)
        paths[modality] = "/".join(parts)
    return paths


def _spoken(source: "Tfds", features: Any, path: str | None) -> tuple[str, ...]:
    """The class names, where a class is used as the text. Raises ValueError where the text is a number
    without names.
    """
    if path is None:
        return ()
    inside = features
    for part in path.split("/"):
        inside = _inside(inside)[part]
    if names := getattr(_inside(inside), "names", None):
        return tuple(names)
    kind = getattr(_inside(inside), "np_dtype", None)  # a dict for a group of features
    if not isinstance(kind, Mapping) and kind is not None and np.issubdtype(kind, np.number):
        raise UserError(
            f"Tfds({source.name!r}, fields={{'text': {path!r}}}): it holds numbers ({np.dtype(kind)}), and captions "
            "are texts: name another feature"
        )
    return ()


def _kept(value: Any) -> Any:
    """A modality's value without missing items. An empty list means that it is missing (valid=False), not bad."""
    if isinstance(value, list):
        return [item for item in value if filled_cell(item) is not None] or None
    return filled_cell(value)


def _named(value: Any, names: tuple[str, ...]) -> Any:
    """The names of a class, or of several."""
    if isinstance(value, list):
        return [names[item] for item in value]
    return None if value is None else names[int(value)]


def _inside(feature: Any) -> Any:
    return getattr(feature, "feature", feature)  # a Sequence's element


def _keys(feature: Any) -> list[str]:
    inside = _inside(feature)
    return sorted(inside.keys()) if hasattr(inside, "keys") else []


def _reach(record: Any, path: str) -> Any:
    for part in path.split("/"):
        record = record[part]
    return record


def _is_media(modality: str, features: Any, path: str) -> bool:
    """True if a modality holds pictures, sounds or the like: by its name, or by its TFDS feature."""
    import tensorflow_datasets as tfds

    for part in path.split("/"):
        features = _inside(features)[part]
    return modality in MEDIA or isinstance(
        _inside(features), tfds.features.Image | tfds.features.Audio | tfds.features.Video
    )


def _plain(value: Any, media: bool = False) -> Any:
    """Converts TFDS's values: texts from bytes to str, sequences from object arrays to lists; pictures and sounds stay
    bytes.
    """
    if isinstance(value, Mapping):
        return {key: _plain(item, media) for key, item in value.items()}
    if isinstance(value, bytes):
        return value if media else _text(value)
    if isinstance(value, list) or getattr(value, "dtype", None) == np.dtype(object):
        return [_plain(item, media) for item in value]
    return value.item() if getattr(value, "shape", None) == () else value


def _sound(value: Any, rate: int) -> Any:
    """A waveform of whole 16-bit samples as a WAV file, which stores its rate; anything else unchanged."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
        return value
    samples = value.astype(np.int16)
    if not np.array_equal(samples, value):
        return value
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value  # a column of bytes that are no text
