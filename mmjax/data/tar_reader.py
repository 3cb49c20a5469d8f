"""Reads files within tars by where they lie: those of an example in one piece."""

from collections.abc import Sequence

from mmjax.data.ranged_files import RangedFiles
from mmjax.data.tar_index import Member

_APART = 2**16  # bytes between two files of an example that are read for nothing, rather than read twice


def read_members(files: RangedFiles, tar: int, members: Sequence[Member]) -> dict[str, bytes]:
    """The contents of files of an example, by suffix: in one piece where little lies between them.

    Raises UserError where the tar can't be read, or has changed.
    """
    if not members:
        return {}
    begin, end = members[0].offset, members[-1].offset + members[-1].size
    if end - begin > sum(member.size for member in members) + _APART * len(members):
        return {each.suffix: files.read(tar, each.offset, each.size) for each in members}
    whole = files.read(tar, begin, end - begin)
    return {each.suffix: whole[each.offset - begin : each.offset - begin + each.size] for each in members}
