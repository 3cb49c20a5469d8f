"""Iterates over one entry of a split, without the pictures and sounds beside it: for what is counted before a run."""

from collections.abc import Iterator

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains, Row, evaluation
from mmjax.data.pipeline import Prepared
from mmjax.data.record_transforms import RecordTransforms


def entry_rows(prepared: Prepared, split: str, entry: str) -> Iterator[Row]:
    """The arrays of each example that has the entry, `text` and its labels `text_<name>`, in the order of the sources;
    nothing is drawn at random. Raises SplitNotFoundError where no source has the split."""
    tokenizers = {name: model for name, model in prepared.chains.tokenizers.items() if name == entry}
    chains = Chains({entry: prepared.mixture.transforms[entry]}, tokenizers)
    transforms = RecordTransforms(prepared.mixture.record_transforms, (entry,))
    for records in prepared.open(split).values():
        if entry not in transforms.columns(records.columns):
            continue
        for index in range(len(records)):
            record = transforms(records[index], evaluation)
            if record.get(entry) is None or isinstance(record[entry], BadExample):
                continue
            row = chains.row(record, evaluation)
            if row[f"{entry}_valid"]:
                yield row
