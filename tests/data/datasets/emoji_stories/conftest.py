import pytest

from mmjax.data.datasets.emoji_stories.builder import StoriesConfig
from mmjax.data.datasets.emoji_stories.stories import planned_stories


@pytest.fixture(scope="package")
def planned():
    config = StoriesConfig(name="all")
    return planned_stories(config.stories, config.events)
