"""What the suite's own settings promise."""

import os


def test_a_file_s_tests_share_a_worker(request):
    """Its fixtures are made once, and of the tests that start processes one runs at a time."""
    if os.environ.get("PYTEST_XDIST_WORKER") and request.config.option.loadgroup:
        assert request.node.nodeid.endswith("@tests/test_conftest.py")
