import os
import unicodedata
from pathlib import Path

import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File, is_remote, on_disk, some_exist


@pytest.mark.parametrize("there", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_name_is_found_in_either_normal_form_of_unicode(tmp_path: Path, there, asked):
    folder = tmp_path / unicodedata.normalize(there, "gâteaux")
    folder.mkdir()
    (folder / unicodedata.normalize(asked, "crème.png")).write_bytes(b"whole")  # the two may even be mixed
    name = unicodedata.normalize(asked, "gâteaux/crème.png")
    assert File(str(tmp_path / name)).read() == b"whole"
    assert some_exist([File(str(tmp_path / "gone.png")), File(str(tmp_path / name))])
    assert on_disk(str(tmp_path / "gâteaux" / "none.png")) is None
    assert on_disk(str(tmp_path / "plain.png")) is None
    assert not some_exist([File(str(tmp_path / "none.png"))])


def test_of_two_names_that_differ_by_form_alone_each_is_its_own(tmp_path: Path):
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é.png")).write_bytes(form.encode())
    for form in ("NFC", "NFD"):
        assert File(str(tmp_path / unicodedata.normalize(form, "é.png"))).read() == form.encode()


def test_a_file_that_is_gone_is_named_as_it_was_asked_for(tmp_path: Path):
    for name in ("é.png", "e.png", "with\0nul.png"):
        with pytest.raises(BadExample, match="can't be read"):
            File(str(tmp_path / name)).read()


def test_addresses_are_told_from_paths():
    assert all(
        map(is_remote, ("https://a.org/b.png", "s3://bucket/b.png", "gs://b", " HTTP://x", "data:image/png;base64,"))
    )
    assert not any(map(is_remote, ("a.png", "/a/b.png", "http/a.png", "C:/a.png", "a:b.png", "~/a.png")))


def test_what_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(BadExample, match="is no file but a pipe, a socket or a device"):
            File(str(path)).read()
