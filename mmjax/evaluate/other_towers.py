"""The towers of another model on a split's pictures, to judge what was written of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmjax.data.chains import Chains
from mmjax.data.pipeline import Prepared
from mmjax.errors import UserError
from mmjax.experiment.graph import build


@dataclass(frozen=True)
class OtherTowers:
    """A model that embeds texts, and the embeddings of a split's pictures by it."""

    pictures: Float[np.ndarray, "n e"]
    """Unit vectors, by row."""
    valid: Bool[np.ndarray, " n"]
    """Whether the row has a picture; vectors of others are undefined."""
    model: Any
    variables: Any

    def text(self, strings: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors of texts."""
        with self.model.holding(self.variables) as variables:
            return self.model.embedder.text(variables, strings)


def other_towers(source: str, split: str, image: str, data: Prepared, batch_size: int) -> OtherTowers:
    """Loads the model that `mmjax.load` would find under that path or name, and embeds the pictures of a split by it,
    through its own chain. No code that comes with it is run.

    image: the entry of the pictures, in the data and among the model's towers.

    Raises:
        UserError: there is no such model, or it has no tower of these pictures and one of texts.
    """
    # They need what asks for this.
    from mmjax.evaluate.prepared_model import prepared_model, resolved

    bundle = resolved(source, None, lambda text: None)
    experiment = build(bundle.config)
    chains = Chains(experiment.data.transforms, bundle.tokenizers)
    if image not in experiment.towers or image not in chains.specs or chains.texts is None:
        raise UserError(
            f"{source} can't judge texts of {image!r}: it has towers of {', '.join(experiment.towers) or 'nothing'}, "
            f"and needs one of {image!r} and one of texts"
        )
    own = {image: experiment.data.transforms[image]}
    pictures = Prepared(replace(data.mixture, transforms=own), Chains(own, {}), data.data_dir)
    model = prepared_model(experiment, pictures, batch_size, chains)
    with model.holding(bundle.variables) as variables:
        embedded = model.embedder.split(variables, split)
    return OtherTowers(embedded.embeddings[image], embedded.valid[image], model, bundle.variables)
