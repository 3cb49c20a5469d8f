"""Checks names that become names of files: one plain path component each, wherever they come from."""

from mmjax.errors import UserError

LONGEST = 100  # bytes: leaves room for a prefix and a suffix within what file systems allow


def plain(name: object, where: str) -> str:
    """Returns `name`, if it can be a part of a file's name and leads to no other folder.

    where: the thing of that name, for the message.

    Raises:
        UserError: it is empty or too long, begins with a dot, or holds a slash, a backslash or an unprintable
            character.
    """
    if isinstance(name, str) and name.isprintable() and name and not name.startswith(".") and not {*"/\\"} & {*name}:
        if len(name.encode("utf-8", "replace")) <= LONGEST:
            return name
        raise UserError(f"{where} is {name[:20]!r}…, {len(name):,} characters: a name of a file has {LONGEST} at most")
    raise UserError(
        f"{where} is {str(name)[:LONGEST]!r}, which becomes the name of a file: it must be one plain name, without "
        "slashes or control characters, and not begin with a dot"
    )
