import pytest

from mmjax.data.datasets.described_emoji.builder import DescribedConfig
from mmjax.data.datasets.described_emoji.dialogues import dialogues_of
from mmjax.data.datasets.described_emoji.tiles import planned_tiles


@pytest.fixture(scope="package")
def planned():
    return planned_tiles(DescribedConfig(name="all").pictures)


@pytest.fixture(scope="package")
def held(planned):
    """The dialogues of each split, each with its scene."""
    return {
        split: [(scene, turns) for scene in each for turns in dialogues_of(scene)] for split, each in planned.items()
    }
