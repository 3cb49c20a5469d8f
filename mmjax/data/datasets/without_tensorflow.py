"""Rewrites a dataset that needed TensorFlow to be built, so that reading it needs none.

Only the description of its features is an obstacle: the constructor of `tfds.features.Audio` imports TensorFlow, and it
stores, unless it keeps the file's bytes, the same as `tfds.features.Tensor`. So `features.json` is rewritten with the
latter; the old file is kept beside it, and has the sample rates.
"""

import json
from pathlib import Path
from typing import Any

from mmjax.runtime.files import output

FEATURES = "features.json"
ORIGINAL = "features.tfds.json"
_AUDIO = "tensorflow_datasets.core.features.audio_feature.Audio"
_TENSOR = "tensorflow_datasets.core.features.tensor_feature.Tensor"


def free(folder: Path) -> None:
    """Rewrites the description of a built dataset, where that needs TensorFlow and can do without."""
    text = (folder / FEATURES).read_text(encoding="utf-8")
    content = json.loads(text)
    if not any([_as_tensor(feature) for feature in _audio(content).values()]):  # a list: every one is changed
        return
    for name, new in ((ORIGINAL, text), (FEATURES, json.dumps(content, indent=4))):
        output.write(folder / name, new)


def rates(folder: Path) -> dict[str, int]:
    """The sample rates, in Hz, of a dataset that `free` has rewritten, by the feature's name, parts joined by "/"."""
    if not (folder / ORIGINAL).exists():
        return {}
    content = json.loads((folder / ORIGINAL).read_text(encoding="utf-8"))
    found = {name: feature["audio"].get("sampleRate") for name, feature in _audio(content).items()}
    return {name: int(rate) for name, rate in found.items() if rate}


def _audio(feature: Any, name: str = "") -> dict[str, dict[str, Any]]:
    """Every Audio feature in a description, by name."""
    if not isinstance(feature, dict):
        return {}
    if feature.get("pythonClassName") == _AUDIO:
        return {name: feature}
    inside = feature.get("featuresDict", {}).get("features", {})
    found = {k: v for key, part in inside.items() for k, v in _audio(part, f"{name}/{key}" if name else key).items()}
    return found | _audio(feature.get("sequence", {}).get("feature"), name)


def _as_tensor(feature: dict[str, Any]) -> bool:
    """Changes an Audio feature in place; False where it holds a file's bytes."""
    audio = feature["audio"]
    if audio.get("lazyDecode"):
        return False
    del feature["audio"]
    feature["pythonClassName"] = _TENSOR
    encoding = audio.get("encoding", "NONE").lower()
    feature["tensor"] = {"shape": audio["shape"], "dtype": audio["dtype"], "encoding": encoding}
    return True
