"""Names of classes, as a config.json of Hugging Face's has them: `id2label`, and its inverse `label2id`."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import UserError
from mmjax.interop.config_keys import Values

_COUNT = 2  # of classes, where config.json says nothing of them


def label_names(config: Values) -> tuple[str, ...]:
    """The names of the classes, by number; `LABEL_0`, `LABEL_1` and so on where only their `num_labels` is said.

    Raises UserError where the numbers aren't 0, 1, 2, ... up to the last, or a name isn't a text.
    """
    said = config.get("id2label")
    if said is None:
        count = config.get("num_labels", _COUNT)
        if type(count) is not int or count < 1:
            raise UserError(f"config.json: num_labels={count!r} is no number of classes, which is 1 or more")
        return numbered(count)
    names = {str(number): name for number, name in said.items()} if isinstance(said, Mapping) else {}
    found = [names.get(str(number)) for number in range(len(names))]
    if not found or not all(isinstance(name, str) for name in found):
        raise UserError(
            f'config.json: id2label={said!r:.80} names no classes: it has a text for each number, {{"0": "O", ...}}'
        )
    return tuple(map(str, found))


def numbered(count: int) -> tuple[str, ...]:
    """Their names of classes without a name."""
    return tuple(f"LABEL_{number}" for number in range(count))


def label_keys(names: Sequence[str]) -> dict[str, Any]:
    """The entries of config.json for classes of these names."""
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
