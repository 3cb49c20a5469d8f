"""A prepared folder of small videos, made once."""

from pathlib import Path

import pytest

from mmjax.data.prepare import plan
from mmjax.data.prepare.prepare_videos import prepare_videos
from mmjax.data.prepare.settings import PrepareSettings
from tests.data.prepare.made import make_folder

SETTINGS = PrepareSettings(seconds=2.0, rate=2.0, short_side=32)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos") / "in")


@pytest.fixture(scope="session")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one process, a shard for each few videos."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LEAST", 1)
        prepare_videos(str(videos), out, SETTINGS, workers=1)
    return out
