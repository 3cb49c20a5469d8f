"""A folder still holds what was written into it, or the file that doesn't is named."""

import json

import pytest
from etils import epath

from mmjax.runtime.files import digests

CONTENTS = {"one": b"first", "inside/two": bytes(range(256)) * 100, "inside/deeper/empty": b"", "times": b"12:00"}


@pytest.fixture
def folder(tmp_path) -> epath.Path:
    for name, contents in CONTENTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    digests.write(epath.Path(tmp_path), leave_out=("times",))
    return epath.Path(tmp_path)


def test_what_is_as_it_was_has_no_problems(folder):
    (folder / "times").write_text("12:01")
    (folder / "later").write_text("a file that came later")
    assert digests.problems(folder) == []


@pytest.mark.parametrize("place", [0, 12_800, 25_599])
def test_a_flipped_bit_is_seen_wherever_it_is(folder, place):
    contents = bytearray(CONTENTS["inside/two"])
    contents[place] ^= 1
    (folder / "inside/two").write_bytes(bytes(contents))
    assert digests.problems(folder) == ["inside/two has other contents than were written"]


def test_files_that_are_gone_or_cut_are_named(folder):
    (folder / "one").unlink()
    (folder / "inside/two").write_bytes(CONTENTS["inside/two"][:1_000])
    assert digests.problems(folder) == ["inside/two has 1,000 bytes instead of 25,600", "one is missing"]


@pytest.mark.parametrize("written", ["inside/two", "25600"])
def test_damage_to_the_list_is_not_taken_for_damage_to_a_file(folder, written):
    text = (folder / digests.NAME).read_text()
    (folder / digests.NAME).write_text(text.replace(written, written[:-1] + "1"))
    assert digests.problems(folder) == ["digests.json has other contents than were written"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"blake2b": 3}', '{"blake2b": {"one": [5]}}', '{"other": {}}', b"\xff\xfe"]
)
def test_a_damaged_list_is_a_problem_too(folder, text):
    (folder / digests.NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert digests.problems(folder) == ["digests.json can't be read"]
    (folder / digests.NAME).unlink()
    assert digests.problems(folder) == ["digests.json, which says what its files held, is missing"]


@pytest.mark.parametrize("name", ["/proc/version", "../outside", "inside/../../outside"])
def test_a_list_names_files_of_its_folder_alone(folder, name):
    """A stranger's would have others read, without end where it can be."""
    (folder / digests.NAME).write_text(
        json.dumps({"blake2b": {name: (1, "a")}, "of this list": digests._of_list({name: (1, "a")})})
    )
    assert digests.problems(folder) == ["digests.json can't be read"]


def test_an_object_that_is_nested_too_deeply_is_not_what_was_sealed():
    for depth in (10, 900, 1_000, 5_000):
        inner: list = []
        for _ in range(depth):
            inner = [inner]
        assert not digests.unbroken({"experiment": inner, digests.SEAL: "x"})
