"""Numbers that can't be are refused by their paths, in an experiment as in a record."""

import copy
import json
import math
from typing import Any

import fiddle as fdl
import pytest

from mmjax.data.pipeline import Mixture, prepare
from mmjax.errors import UserError
from mmjax.experiment import record as records
from mmjax.experiment.graph import build
from tests.trained import tiny_config


@pytest.fixture(scope="module")
def config() -> fdl.Config:
    return tiny_config("shapes.csv")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("towers.text.vocab", 2**45, "towers.text.vocab=35184372088832 is beyond 2,147,483,647, the largest size"),
        ("towers.image.blocks.depth", 2**45, "towers.image.blocks.depth=35184372088832 is beyond"),
        ("towers.audio.spectrogram.mels", 2**45, "towers.audio.spectrogram.mels=35184372088832 is beyond"),
        (
            "objectives.masked_image.decoder.blocks.width",
            2**45,
            "objectives.masked_image.decoder.blocks.width=35184372088832 is beyond",
        ),
        ("data.transforms.image.1.size", 2**45, "data.transforms.image.1.size=35184372088832 is beyond"),
        ("data.transforms.text.0.tokenizer.vocab_size", 2**45, "tokenizer.vocab_size=35184372088832 is beyond"),
        ("data.transforms.audio.1.samples", 2**45, "data.transforms.audio.1.samples=35184372088832 is beyond"),
        ("batch_size", 2**45, "batch_size=35184372088832 is beyond"),
        ("weights.masked_image", math.inf, "weights.masked_image=inf must be a finite number"),
        ("weights.masked_image", math.nan, "weights.masked_image=nan must be a finite number"),
        ("data.weights.shapes", math.inf, "data.weights.shapes=inf must be a finite number"),
        ("optimizer.peak_lr", math.inf, "optimizer.peak_lr=inf must be a finite number"),
        ("optimizer.weight_decay", math.nan, "optimizer.weight_decay=nan must be a finite number"),
        ("ema", math.nan, "ema=nan must"),
    ],
)
def test_numbers_that_can_not_be_are_named_by_their_paths(config, path, value, message):
    record = json.loads(records.dumps(config))
    del record["blake2b"]
    place: Any = record["experiment"]
    *parts, last = path.split(".")
    for part in parts:
        place = place["@tuple"] if isinstance(place, dict) and "@tuple" in place else place
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = {"@float": repr(value)} if isinstance(value, float) else value
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        build(records.loads(json.dumps(record)))


def test_where_inf_says_that_there_is_no_bound_it_stays(config):
    config = copy.deepcopy(config)
    config.optimizer.clip_norm, config.patience = math.inf, math.inf
    assert build(config).optimizer.clip_norm == math.inf
    config.objectives["image_text"].scale_max = math.inf
    build(config)


@pytest.mark.parametrize("weight", [math.inf, math.nan, "a", None])
def test_the_weight_of_a_source_is_finite(weight):
    with pytest.raises(UserError, match=r"a weight is above 0 and finite"):
        prepare(Mixture({"own": weight}, {}))
