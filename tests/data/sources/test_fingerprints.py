from mmjax.data.paths import File
from mmjax.data.sources.fingerprints import of_columns


def test_a_columns_digest_changes_with_any_cell_and_with_their_order():
    columns = [
        ["a", "b"],
        ["b", "a"],
        ["ab"],
        ["a", "b", None],
        ["a", ["b"]],
        [b"a", "b"],
        [{"en": "a"}, "b"],
        [File("a"), "b"],
        [],
    ]
    digests = [of_columns({"text": column}, "")["text"] for column in columns]
    assert len(set(digests)) == len(columns)
    assert of_columns({"text": columns[0]}, "")["text"] == digests[0]


def test_files_count_by_their_place_within_the_root():
    here, there = (of_columns({"image": [File(f"{root}/a.png")]}, root) for root in ("/here", "there"))
    assert here == there
    assert of_columns({"image": [File("/hereafter/a.png")]}, "/here") != here
