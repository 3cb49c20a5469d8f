"""mmjax: multimodal pretraining in JAX.

What stands here is what a notebook needs. Names are imported when first asked for, so that the data workers, which
import `mmjax.data`, never pay for jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what an editor reads
    from mmjax.experiment import Experiment, Load
    from mmjax.loading import Model, load

__version__ = "0.1.0"
_HOME = {
    "Experiment": "mmjax.experiment",
    "Load": "mmjax.experiment",
    "Model": "mmjax.loading",
    "load": "mmjax.loading",
}
__all__ = ["Experiment", "Load", "Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mmjax' has no attribute {name!r}; it gives {', '.join(sorted(_HOME))}")
