"""A name of a file is one plain component."""

import pytest

from mmjax.errors import UserError
from mmjax.runtime.files.names import plain


@pytest.mark.parametrize("name", ["text", "image→text", "train[95%:]", "a b", "test+validation", "x" * 100, "é" * 50])
def test_what_is_plain_is_taken_as_it_is(name):
    assert plain(name, "it") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../P", "/abs/P", "a/b", "a\\b", "C:\\P", "a\0b", "a\nb", ".hidden", "\udc80", None, 7, "x\x1b[2J"],
)
def test_what_leads_elsewhere_is_refused(name):
    with pytest.raises(
        UserError, match=r"^the split is .*, which becomes the name of a file: it must be one plain name"
    ):
        plain(name, "the split")


@pytest.mark.parametrize("name", ["x" * 101, "é" * 51])
def test_what_no_file_system_takes_is_refused(name):
    with pytest.raises(UserError, match="a name of a file has 100 at most"):
        plain(name, "the split")
