import pytest

from mmjax.data.datasets.tagged_emoji.builder import TaggedConfig
from mmjax.data.datasets.tagged_emoji.sentences import planned_sentences


@pytest.fixture(scope="package")
def planned():
    return planned_sentences(TaggedConfig(name="all").sentences)
