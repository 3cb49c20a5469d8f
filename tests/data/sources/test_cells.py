import datetime
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.paths import File
from mmjax.data.sources.cells import caption_cells, filled_cell, labels, media, text_cells
from mmjax.data.sources.tables import Table
from mmjax.errors import UserError


def table(*cells) -> Table:
    return Table(Path("t.csv"), {"c": list(cells)}, range(2, len(cells) + 2), "line")


@pytest.mark.parametrize(
    "cell",
    ["", " ", "\t\n", b"", b" ", None, float("nan"), np.float32("nan"), np.datetime64("NaT"), np.timedelta64("NaT")],
)
def test_a_cell_without_content_is_missing(cell):
    assert filled_cell(cell) is None
    assert labels([cell, "x"]) == [None, "x"]
    assert text_cells([cell, "x"]) == [None, "x"]
    if not isinstance(cell, np.generic):
        assert media(table(cell), "c", Path()) == [None]
        assert caption_cells(table(cell), "c") == [None]


def test_a_cell_with_content_is_there():
    day = datetime.date(2020, 1, 1)
    for cell in ("0", "nan", "None", 0, 0.0, False, b"\0", day, [], {"a": None}):
        assert filled_cell(cell) == cell
    array = np.array([np.nan, 1.0])
    assert filled_cell(array) is array


def test_labels_are_stripped_and_lists_keep_what_is_there():
    assert labels([" cat ", "cat", 3, ["a ", "", None], [None, float("nan")], []]) == ["cat", "cat", 3, ["a"], None, []]
    assert text_cells([" Train ", 7, 7.5, b"val"]) == ["Train", "7", "7.5", "val"]


def test_pictures_and_sounds_are_paths_or_bytes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    cells = ("a.png", " b.png ", "/c.png", "~/d.png", "~e.png", b"data", [b"1", None, b"2"], [])
    assert media(table(*cells), "c", Path("/root")) == [
        File("/root/a.png"),
        File("/root/b.png"),
        File("/c.png"),
        File("/home/me/d.png"),
        File("/root/~e.png"),  # nobody's home
        b"data",
        [b"1", b"2"],
        None,
    ]


def test_cells_of_bytes_and_path_are_read_as_hugging_face_writes_them():
    cells = (
        {"bytes": b"data", "path": "0.png"},
        {"bytes": None, "path": "0.png"},
        {"bytes": b"", "path": " "},
        {"bytes": None, "path": None},
        [{"bytes": b"1", "path": None}, {"bytes": b"2", "path": "x"}],
    )
    assert media(table(*cells), "c", Path("/root")) == [b"data", File("/root/0.png"), None, None, [b"1", b"2"]]


@pytest.mark.parametrize("address", ["https://a.org/1.png", "s3://b/1.png", "gs://b/1.png", "data:image/png,iVB"])
def test_an_address_is_refused_with_the_way_out(address):
    with pytest.raises(UserError, match=r"t\.csv, line 3, column 'c': .* is a URL.*fetch the files first"):
        media(table("a.png", address), "c", Path())
    with pytest.raises(UserError, match="is a URL"):
        media(table({"bytes": None, "path": address}), "c", Path())


@pytest.mark.parametrize("cell", [3, 1.5, True, ["a.png", "b.png"], {"array": [0.0]}, [[0, 0], [0, 0]]])
def test_what_is_no_picture_or_sound_is_refused_by_name(cell):
    with pytest.raises(UserError, match=r"t\.csv, line 2, column 'c' holds .*: a picture or sound is a path"):
        media(table(cell), "c", Path())


def test_captions_are_texts_or_several_texts_however_they_are_written():
    cells = {
        " a cat ": "a cat",
        '["a cat", "a tom"]': ["a cat", "a tom"],
        '{"en": "a cat", "de": "eine Katze"}': {"en": "a cat", "de": "eine Katze"},
        "[music]": "[music]",
        "[1]": "[1]",
        "{x}": "{x}",
        '"a cat"': '"a cat"',
    }
    assert caption_cells(table(*cells), "c") == list(cells.values())
    assert caption_cells(table(7, ["a ", None, "b"], [""], {"en": "a ", "de": None}, {"en": None}, b"c "), "c") == [
        *("7", ["a", "b"], [""], {"en": "a"}, None, "c")
    ]
    # The same in JSON as in Parquet.
    assert caption_cells(table('["a ", null, "b"]', "[]", ' [""] ', "{}", "[null]", '{"en": null}'), "c") == [
        *(["a", "b"], None, [""], None, None, None)
    ]
    assert caption_cells(table(b"\xff"), "c") == [b"\xff"]  # of which the chain says that it is no text


@pytest.mark.parametrize("cell", ["['a cat', 'a tom']", '["a cat", 3]', '["a cat" "a tom"]', '{"en": "a", "n": 3}'])
def test_a_text_that_looks_like_several_captions_and_is_none_is_refused(cell):
    with pytest.raises(UserError, match=r"t\.csv, line 2, column 'c': .* looks like several captions, and is no JSON"):
        caption_cells(table(cell), "c")


@pytest.mark.parametrize("cell", [1.5, True, [1, 2], {"en": 3}, datetime.date(2020, 1, 1)])
def test_what_is_no_caption_is_refused_by_name(cell):
    with pytest.raises(UserError, match=r"t\.csv, line 2, column 'c' holds .*: a caption is a text, a list of texts"):
        caption_cells(table(cell), "c")


@pytest.mark.parametrize("root", [".", "/", "pictures", "/data/pictures", "../x"])
def test_a_path_lies_under_the_root_as_pathlib_says(root):
    for name in (
        "a.png",
        "./a.png",
        "../a.png",
        "b//a.png",
        "b/./a.png",
        "b/../a.png",
        "/a.png",
        "b/",
        ".a.png",
        "b/.a",
    ):
        (found,) = media(table(name), "c", Path(root))
        assert found == File(str(Path(root) / name))
