"""Pictures and texts are embedded by another model as that model itself embeds them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import mmjax
from mmjax.data.evaluation import whole_column
from mmjax.data.pipeline import prepare
from mmjax.errors import UserError
from mmjax.evaluate.split_predictions import SplitPredictor
from mmjax.experiment.graph import build
from mmjax.runtime.mesh import Mesh
from tests.trained import Trained, tiny_config


def test_another_model_embeds_a_split_s_pictures_and_texts_by_its_own_chains(trained: Trained) -> None:
    experiment = build(tiny_config(trained.table))
    pictures = {"image": experiment.data.transforms["image"]}
    data = prepare(replace(experiment.data, transforms=pictures))
    mesh = Mesh().build(jax.devices()[:1])
    asked = SplitPredictor(experiment.pretrainer(), data, mesh, 8).on({}, "test")
    found = asked.towers_of(str(trained.workdir), "image")
    assert asked.towers_of(str(trained.workdir), "image") is found  # loaded once
    model, texts = mmjax.load(trained.workdir), ["red", "blue"]
    stored = whole_column(data, "test", "image")
    assert len(stored) == len(found.pictures) > 4
    rows = [row for row in range(len(stored)) if found.valid[row]]
    np.testing.assert_allclose(found.pictures[rows], model.embed(image=[stored[row] for row in rows]), atol=1e-5)
    np.testing.assert_allclose(found.text(texts), model.embed(text=texts), atol=1e-5)
    with pytest.raises(UserError, match="can't judge texts of 'picture': it has towers of image, text, audio"):
        asked.towers_of(str(trained.workdir), "picture")
