"""LLaVA's stages: what trains in each, and what each starts from."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from flax.core import meta

from mmjax.experiment import Load
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.interop import bundle as bundles
from mmjax.train.initialise import initialised, sources
from tests.benchmarks.sizes import FOLDER
from tests.interop.small import randomised

PROJECTOR, DECODER = 20_979_712, 6_738_415_616


@pytest.mark.parametrize(("name", "trained"), [("align_7b", PROJECTOR), ("tune_7b", PROJECTOR + DECODER)])
def test_the_projector_trains_first_and_then_the_decoder_too(name: str, trained: int) -> None:
    built = build(load_experiment(f"{FOLDER}/llava.py:{name}"))
    moving, still = built.optimizer.split(meta.unbox(bundles.variables_of(built))["params"])
    assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(moving)) == trained
    assert "towers_image" in still


def test_the_first_stage_starts_from_a_language_model_and_the_second_from_the_first(tmp_path: Any) -> None:
    """At the sizes of `tiny`."""
    config = load_experiment(f"{FOLDER}/llava.py:tiny")
    other = load_experiment(f"{FOLDER}/llava.py:tiny")
    words = bundles.stand_in({}, other.objectives, {"text": other.data.transforms["text"]})
    other.objectives["words"].reads, other.objectives["words"].decoder.inserted = (), {}
    del other.data.transforms["text"][-1].slots
    bundles.save(randomised(words, source="words"), tmp_path / "words")
    first = randomised(config, source="first")
    bundles.save(replace(first, tokenizers={}), tmp_path / "first")

    def started(**init: Load) -> dict[str, Any]:
        config.init = {path.replace("_", "."): load for path, load in init.items()}
        built = build(config)
        fresh = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), meta.unbox(bundles.variables_of(built)))
        said: list[str] = []
        return initialised(fresh, built, sources(built, said.append), said.append)["params"]

    aligned = started(objectives_words_decoder=Load(str(tmp_path / "words"), skip=(r"^inserted_image/",)))
    decoder = aligned["objectives_words"]["decoder"]
    wanted = randomised(words, source="words").variables["params"]["objectives_words"]["decoder"]
    np.testing.assert_array_equal(decoder["token"]["embedding"], wanted["token"]["embedding"])
    assert not np.any(decoder["inserted_image"]["in"]["kernel"])
    load = Load(str(tmp_path / "first"))
    tuned = started(towers_image=load, objectives_words=load)
    jax.tree.map(np.testing.assert_array_equal, tuned, first.variables["params"])
