import pytest

from tests.tiny import write_shapes


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The data of `tests/tiny.py`."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))
