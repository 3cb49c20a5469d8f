import codecs
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mmjax.data.sources.tables import read_table
from mmjax.errors import UserError


def read(folder: Path, content: str | bytes, name: str = "t.csv") -> dict[str, list]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path).columns


PLAIN = {"image": ["a.png", "b.png"], "text": ["a cat, sitting", "ein Kätzchen"]}
TEXT = 'image,text\na.png,"a cat, sitting"\nb.png,ein Kätzchen\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_read_in_unicode_with_any_ends_of_lines(tmp_path, encoding, end):
    assert read(tmp_path, TEXT.replace("\n", end).encode(encoding)) == PLAIN


def test_bytes_in_another_code_are_named_with_their_line_and_the_way_out(tmp_path):
    long = "image,text\n" + "a.png,x\n" * 20_000  # beyond what is decoded at once
    with pytest.raises(UserError, match=r"t\.csv, line 20002: byte 0xe4 is no UTF-8.*iconv -f CP1252 -t UTF-8 t\.csv"):
        read(tmp_path, long.encode() + "b.png,Kätzchen\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"line 1: a NUL byte.*UTF-16 without its mark.*iconv"):
        read(tmp_path, TEXT.replace("ä", "a").encode("utf-16-le"))
    with pytest.raises(UserError, match="can't be read as UTF-16, which its first bytes announce"):
        read(tmp_path, codecs.BOM_UTF16_LE + "image\na".encode("utf-16-le") + b"\0")


@pytest.mark.parametrize(
    ("name", "separator"),
    [("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", ","), ("t.tsv", "\t"), ("t.CSV", ",")],
)
def test_the_separator_is_that_of_the_header_whatever_the_suffix_says(tmp_path, name, separator):
    content = separator.join(["image", "text"]) + "\n" + separator.join(["a.png", f'"1{separator}5 cats"']) + "\n"
    assert read(tmp_path, content, name) == {"image": ["a.png"], "text": [f"1{separator}5 cats"]}
    assert read(tmp_path, f"sep={separator}\n{content}", name)["image"] == ["a.png"]


def test_another_separator_below_the_header_is_no_row_of_its(tmp_path):
    with pytest.raises(UserError, match=r"line 2: the row has 1 cell, and the header 2 names \(image, text\)"):
        read(tmp_path, "image,text\na.png;a cat\n")


def test_rows_of_more_or_fewer_cells_than_the_header_are_named(tmp_path):
    with pytest.raises(UserError, match=r"t\.csv, line 3: the row has 3 cells, and the header 2 names.*quotes round"):
        read(tmp_path, "image,text\na.png,a cat\nb.png,a cat, sitting\n")
    with pytest.raises(UserError, match=r"t\.csv, line 5: the row has 1 cell, .*needs its comma all the same"):
        read(tmp_path, 'image,text\na.png,"a\ncat"\n\nb.png\n')
    assert read(tmp_path, "image,text\na.png,a cat,\n\nb.png,a tom,,\n")["text"] == ["a cat", "a tom"]


def test_quotes_that_do_not_pair_are_named_and_swallow_no_rows(tmp_path):
    with pytest.raises(UserError, match=r"the row of line 3: a quote is opened that never closes"):
        read(tmp_path, 'image,text\na.png,a cat\nb.png,"a tom\nc.png,a dog\n')
    with pytest.raises(UserError, match=r"the row of line 2: the quotes don't pair"):
        read(tmp_path, 'image,text\na.png,"a cat\nb.png,"a tom"\n')
    with pytest.raises(UserError, match=r"the row of line 2: the quotes don't pair"):
        read(tmp_path, 'image,text\na.png,"a 5" disc"\n')
    with pytest.raises(UserError, match=r"line 3: .* into line 4, which looks like a row of its own \(c\.png,a dog"):
        read(tmp_path, 'image,text\na.png,a cat\nb.png,"a tom\nc.png,a dog\nd.png,a cow"\n')
    assert read(tmp_path, 'image,text\na.png,a 5" disc\nb.png,"a 5"" disc"\n')["text"] == ['a 5" disc', 'a 5" disc']


def test_a_cell_of_several_lines_is_one_where_no_line_looks_like_a_row(tmp_path):
    text = "One, two.\nThree, four.\nfive"
    assert read(tmp_path, f'image,text\na.png,"{text}"\nb.png,x\n') == {
        "image": ["a.png", "b.png"],
        "text": [text, "x"],
    }


def test_names_are_stripped_and_told_apart(tmp_path):
    assert list(read(tmp_path, ' image , "text",kind\na.png, "a cat, sitting",x\n')) == ["image", "text", "kind"]
    assert read(tmp_path, ' image , "text"\na.png, "a cat, sitting"\n')["text"] == ["a cat, sitting"]
    with pytest.raises(UserError, match=r"t\.csv: its header names the column 'text' twice"):
        read(tmp_path, "image,text,text \na.png,a,b\n")


def test_a_column_without_a_name_is_called_by_its_place_or_is_none(tmp_path):
    assert read(tmp_path, ",text,\n0,a cat,\n1,a tom,\n") == {"column 1": ["0", "1"], "text": ["a cat", "a tom"]}


def test_a_cell_may_be_longer_than_csv_takes_by_itself(tmp_path):
    assert read(tmp_path, f"text\n{'word ' * 100_000}\n")["text"] == ["word " * 100_000]


@pytest.mark.parametrize("content", ["", "\n\n", "image,text\n", "\ufeff"])
def test_a_table_without_rows_says_so(tmp_path, content):
    with pytest.raises(UserError, match=r"t\.csv (is empty|has no rows)"):
        read(tmp_path, content)


def test_places_are_lines_of_the_file_or_numbers_of_rows(tmp_path):
    (tmp_path / "t.csv").write_text('image,text\n\na.png,"a\ncat"\nb.png,x\n')
    table = read_table(tmp_path / "t.csv")
    assert [table.at(row, "text") for row in range(2)] == [
        f"{tmp_path}/t.csv, line {line}, column 'text'" for line in (3, 5)
    ]
    pyarrow.parquet.write_table(pyarrow.table({" text ": ["a", None]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (table.columns, table.at(1, "text")) == (
        {"text": ["a", None]},
        f"{tmp_path}/t.parquet, row 2, column 'text'",
    )


def test_parquet_that_is_none_or_names_a_column_twice_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"t\.parquet can't be read as Parquet"):
        read(tmp_path, TEXT, "t.parquet")
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="names the column 'text' twice"):
        read_table(tmp_path / "t.parquet")


def test_a_folder_of_that_name_is_said_to_be_one(tmp_path):
    (tmp_path / "parts.parquet").mkdir()
    with pytest.raises(UserError, match=r"parts\.parquet is a folder, and a table is one file: name one of those"):
        read_table(tmp_path / "parts.parquet")
