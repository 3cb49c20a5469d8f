"""Indexes of tars: webdataset's rule of keys, every kind of header and name, and tars that are broken."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.tar_index import BLOCK, index_tar
from mmjax.data.tar_index_store import load_index, save_index
from mmjax.errors import UserError
from tests.data.tar_files import img2dataset_like, write_tar


def read(path, index) -> list[tuple[str, dict[str, bytes]]]:
    content = path.read_bytes()
    return [
        (index.key(row), {one.suffix: content[one.offset : one.offset + one.size] for one in index.members(row)})
        for row in range(len(index))
    ]


def grouped(files) -> list[tuple[str, dict[str, bytes]]]:
    """Webdataset's rule, slowly."""
    found: list[tuple[str, dict[str, bytes]]] = []
    seen: dict[str, int] = {}
    last = None
    for name, content in files:
        folder, slash, base = name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        if not stem or not dot or not suffix:
            continue
        key, suffix = folder + slash + stem, suffix.lower()
        if key != last or suffix in found[-1][1]:
            seen[key] = seen.get(key, 0) + 1
            found.append((key if seen[key] == 1 else f"{key}#{seen[key]}", {}))
            last = key
        found[-1][1][suffix] = content
    return found


FOLDERS, SUFFIXES = ["", "a/", "./b.c/", "/x/", "../"], [".jpg", ".JPG", ".txt", ".seg.png", ""]
BASES = st.text("ab0.é", min_size=1, max_size=6)
NAMES = st.tuples(st.sampled_from(FOLDERS), BASES, st.sampled_from(SUFFIXES)).map("".join)


@given(
    st.lists(st.tuples(NAMES.filter(lambda name: not name.endswith("/")), st.binary(max_size=700)), max_size=12),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
@settings(max_examples=150, deadline=None)
def test_files_are_grouped_as_webdataset_does(tmp_path_factory, files, kind):
    path = write_tar(tmp_path_factory.getbasetemp() / "one.tar", files, kind)
    assert read(path, index_tar(str(path))) == grouped(files)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_large_folders(tmp_path, kind):
    files = [
        ("d" * 90 + "/" + "k" * 120 + ".jpg", b"1"),
        ("d" * 90 + "/" + "k" * 120 + ".txt", b"2"),
        ("é/ü.txt", b"3"),
    ]
    path = write_tar(tmp_path / "a.tar", files, kind)
    assert read(path, index_tar(str(path))) == [
        ("d" * 90 + "/" + "k" * 120, {"jpg": b"1", "txt": b"2"}),
        ("é/ü", {"txt": b"3"}),
    ]


def test_links_sparse_files_and_the_like_are_left_out_and_counted(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("a.jpg", tarfile.SYMTYPE),
            ("b.jpg", tarfile.LNKTYPE),
            ("d", tarfile.DIRTYPE),
            ("f.jpg", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name in ("c.jpg", ".DS_Store", "README", "__meta__.json"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        member = tarfile.TarInfo("s.jpg")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "s.jpg",
            "GNU.sparse.realsize": "9",
        }
        content = b"1\n0\n9\n".ljust(BLOCK, b"\0") + b"123456789"
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    index = index_tar(str(path))
    assert [index.key(row) for row in range(len(index))] == ["c"]
    assert index.notes == (
        "2 links are left out",
        "1 devices and pipes are left out",
        "3 names without key or suffix are left out",
        "1 sparse files are left out",
    )


def test_a_tar_that_is_cut_anywhere_is_used_up_to_there(tmp_path):
    """Of the examples before the cut all but perhaps the last, whose files may lack, and never a part of one."""
    path = write_tar(tmp_path / "a.tar", img2dataset_like(3, 4))
    whole, content = read(path, index_tar(str(path))), path.read_bytes()
    ends = [max(one.offset + one.size for one in index_tar(str(path)).members(row)) for row in range(4)]
    cut, told = tmp_path / "cut.tar", 0
    for size in [*range(0, ends[-1] + 2 * BLOCK, 97), *ends, *(end + -end % BLOCK for end in ends)]:
        cut.write_bytes(content[:size])
        try:
            index = index_tar(str(cut))
        except UserError:
            assert size < 2 * BLOCK  # less than a header
            continue
        found = read(cut, index)
        inside = sum(end <= size for end in ends)
        if found != whole[: len(found)]:  # cut between two files of an example, where a header would begin
            assert found[:-1] == whole[: len(found) - 1]
            assert size % BLOCK == 0
            assert "may lack files" in index.notes[0]
            continue
        assert bool(index.notes) == (size < ends[-1] + -ends[-1] % BLOCK + BLOCK)
        assert inside - 1 <= len(found) <= inside
        told += bool(index.notes)
    assert told > 20


def test_what_follows_a_broken_header_is_left_out_and_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", img2dataset_like(3, 4))
    whole, content = read(path, index_tar(str(path))), bytearray(path.read_bytes())
    third = index_tar(str(path)).members(2)[0].offset - BLOCK
    content[third : third + 100] = b"\xff" * 100
    path.write_bytes(content)
    index = index_tar(str(path))
    assert read(path, index) == whole[:1]  # the second may have lacked files
    assert "broken" in index.notes[0]


def test_what_is_no_tar_is_refused(tmp_path):
    import gzip

    with pytest.raises(UserError, match=r"none\.tar can't be read: No such file"):
        index_tar(str(tmp_path / "none.tar"))
    (tmp_path / "text.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"text\.tar is no tar"):
        index_tar(str(tmp_path / "text.tar"))
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", img2dataset_like(0, 1)).read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar\.gz is compressed"):
        index_tar(str(packed))
    (tmp_path / "empty.tar").write_bytes(b"")
    assert len(index_tar(str(tmp_path / "empty.tar"))) == 0


def test_an_index_is_kept_whole_and_for_its_own_tar(tmp_path):
    path = write_tar(tmp_path / "a.tar", img2dataset_like(3, 4))
    index = index_tar(str(path))
    save_index(index, tmp_path / "a.npz")
    again = load_index(tmp_path / "a.npz", index.state)
    assert again is not None
    assert read(path, again) == read(path, index)
    assert load_index(tmp_path / "a.npz", index.state._replace(modified=1)) is None
    assert load_index(tmp_path / "a.npz", index.state._replace(size=1)) is None
    content = (tmp_path / "a.npz").read_bytes()
    for size in range(0, len(content), 211):
        (tmp_path / "a.npz").write_bytes(content[:size])
        assert load_index(tmp_path / "a.npz", index.state) is None
    np.savez(tmp_path / "a.npz", facts=np.array([{}], object))
    assert load_index(tmp_path / "a.npz", index.state) is None  # nothing is unpickled
