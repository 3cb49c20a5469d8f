"""Reads the modules that a folder of sentence-transformers lists, and the settings of each.

modules.json            the modules, in their order, and the folder of each ("" is this one)
1_Pooling/config.json   how a text's tokens become one vector
2_Dense/                a linear map of it, and its activation
3_Normalize/            the vector's length becomes 1
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax.errors import UserError, nearest
from mmjax.interop import config_keys, weight_files
from mmjax.interop.weight_files import Arrays
from mmjax.runtime.files import json_text

MODULES, CONFIG = "modules.json", "config.json"
KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")  # in this order; the last two may be missing
TYPE = "sentence_transformers.models."  # as every version of theirs reads it
MODES = {  # of pooling, theirs: ours
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "mean_weighted",
    "lasttoken": "last",
}
SWITCHES = {  # before version 6 a key for each mode
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {"torch.nn.modules.activation.Tanh": True, "torch.nn.modules.linear.Identity": False}  # is it a tanh
PLACE = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


class Module(NamedTuple):
    """One of `KNOWN`, and the folder of its files."""

    kind: str
    folder: Path


# --- in ---


def listed_modules(folder: Path) -> list[Module]:
    """The modules that modules.json lists.

    Raises:
        UserError: it is broken, or lists what isn't among `KNOWN`, or in another order.
    """
    found: list[Module] = []
    for entry in read_json(folder / MODULES, list):
        said = entry if isinstance(entry, dict) else {}
        kind, path = str(said.get("type") or ""), PurePosixPath(str(said.get("path") or ""))
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or name not in KNOWN:
            hint = f" (its folder {path} may be read alone)" if name == "CLIPModel" else ""
            raise UserError(
                f"{folder}: {MODULES} has the module {kind or entry!r}, which isn't here{hint}; "
                f"sentence_transformers' {', '.join(KNOWN)} are{nearest(name, KNOWN)}"
            )
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{folder}: {MODULES} has the path {str(path)!r}, which leads out of the folder")
        found.append(Module(name, folder / path))
    kinds = [module.kind for module in found]
    if kinds != [kind for kind in KNOWN if kind in kinds] or kinds[:2] != ["Transformer", "Pooling"]:
        raise UserError(
            f"{folder}: {MODULES} has {', '.join(kinds) or 'no modules'}; what can be read here is Transformer, "
            "Pooling, perhaps one Dense, perhaps Normalize, in this order"
        )
    return found


def pooling(folder: Path, width: int) -> str:
    """The name of ours, of a Pooling's folder. `include_prompt` is left to the one who knows the prompt.

    Raises:
        UserError: there is none of that name, or there are several, whose vectors are joined.
    """
    where = str(folder / CONFIG)
    config = {key: value for key, value in read_json(folder / CONFIG).items() if key != "include_prompt"}
    switched = [mode for key, mode in SWITCHES.items() if config.pop(key, False)]
    sizes = {"embedding_dimension": width, "word_embedding_dimension": width}
    given = config_keys.settings(config, where, {"pooling_mode": switched or ["mean"]}, sizes)["pooling_mode"]
    modes = [given] if isinstance(given, str) else given
    if len(modes) != 1:
        raise UserError(
            f"{where}: pooling_mode={modes!r}: the vectors of several modes are joined there, and one mode can be "
            "expressed here"
        )
    if modes[0] not in MODES:
        raise UserError(f"{where}: pooling_mode={modes[0]!r} is none of {', '.join(MODES)}{nearest(modes[0], MODES)}")
    return MODES[modes[0]]


def dense_module(folder: Path, tower: fdl.Config) -> Arrays:
    """Puts a Dense's settings into the tower's, and gives its arrays by their names.

    Raises:
        UserError: it can't be expressed here.
    """
    where, config = str(folder / CONFIG), _placed(folder)
    defaults = {"out_features": None, "bias": True, "activation_function": next(iter(ACTIVATIONS))}
    given = config_keys.settings(
        config, where, defaults, {"in_features": tower.blocks.width, "use_residual": False, **PLACE}
    )
    activation = given["activation_function"]
    if activation not in ACTIVATIONS:
        raise UserError(f"{where}: activation_function={activation!r} isn't here; {', '.join(ACTIVATIONS)} are")
    tower.embed_dim, tower.projection_bias = given["out_features"], given["bias"]
    tower.projection_tanh = ACTIVATIONS[activation]
    return weight_files.read(folder)


def normalize(folder: Path) -> None:
    """Raises UserError where a Normalize is of something else than the text's vector."""
    if (folder / CONFIG).is_file():
        config_keys.settings(_placed(folder), str(folder / CONFIG), {}, PLACE)


def _placed(folder: Path) -> dict[str, Any]:
    """A config, without names of inputs and outputs that are None: then they are as ever."""
    return {key: value for key, value in read_json(folder / CONFIG).items() if key not in PLACE or value is not None}


# --- out ---


def write(tower: Any, arrays: Arrays, folder: Path) -> None:
    """Writes modules.json and all that follows the Transformer, a Normalize last.

    tower: built.  arrays: of the Dense, by their names; empty where the tower has no projection.
    """
    kinds = ["Transformer", "Pooling", *(["Dense"] if arrays else []), "Normalize"]
    paths = {kind: f"{place}_{kind}" * (place > 0) for place, kind in enumerate(kinds)}
    for path in paths.values():
        (folder / path).mkdir(exist_ok=True)
    mode = next(theirs for theirs, ours in MODES.items() if ours == tower.pooling)
    switches = {key: name == mode for key, name in SWITCHES.items()}
    write_json({"word_embedding_dimension": tower.sizes.width, **switches}, folder / paths["Pooling"] / CONFIG)
    if arrays:
        activation = next(name for name, tanh in ACTIVATIONS.items() if tanh == tower.projection_tanh)
        sizes = {"in_features": tower.sizes.width, "out_features": tower.embed_dim, "bias": tower.projection_bias}
        write_json(sizes | {"activation_function": activation}, folder / paths["Dense"] / CONFIG)
        weight_files.write(arrays, folder / paths["Dense"])
    entries = [
        {"idx": place, "name": str(place), "path": path, "type": TYPE + kind}
        for place, (kind, path) in enumerate(paths.items())
    ]
    write_json(entries, folder / MODULES)


def write_json(value: Any, file: Path) -> None:
    """Writes a value as a JSON file."""
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path, kind: type = dict) -> Any:
    """Reads a value of that kind from a JSON file.

    Raises:
        UserError: it isn't there, is broken, or holds something else.
    """
    if not file.is_file():
        raise UserError(f"{file.parent} has no {file.name}, which a model of sentence-transformers has")
    values = json_text.read(file)
    if not isinstance(values, kind):
        raise UserError(f"{file} holds no {kind.__name__} but {values!r:.80}")
    return values
