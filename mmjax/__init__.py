"""mmjax: multimodal pretraining in JAX.

What stands here is what a notebook needs. Names are imported when first asked for, so that the data workers, which
import `mmjax.data`, never pay for jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what an editor reads
    from mmjax.data import embedding_files as embeddings
    from mmjax.errors import UserError
    from mmjax.experiment.definition import Experiment, Load
    from mmjax.inference.model import Model, load

__version__ = "0.1.0"
_HOME = {
    "Experiment": "mmjax.experiment.definition",
    "Load": "mmjax.experiment.definition",
    "Model": "mmjax.inference.model",
    "UserError": "mmjax.errors",
    "embeddings": "mmjax.data.embedding_files",  # the file itself: `mmjax.embeddings.read`
    "load": "mmjax.inference.model",
}
__all__ = ["Experiment", "Load", "Model", "UserError", "__version__", "embeddings", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mmjax' has no attribute {name!r}; it gives {', '.join(sorted(_HOME))}")
    home = import_module(_HOME[name])
    return home if name == "embeddings" else getattr(home, name)


def __dir__() -> list[str]:
    """What completion shows: the public names alone, none of which is imported for it."""
    return sorted(__all__)
