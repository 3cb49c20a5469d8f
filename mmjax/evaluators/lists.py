"""Names of classes and prompts that many evaluate with, kept as files beside this one."""

from importlib import resources

from mmjax.errors import UserError, unknown


def class_list(name: str) -> tuple[str, ...]:
    """The class names of `names/<name>.txt`, in the order of the data's labels.

    Raises:
        UserError: there is no such list (the nearest is named).
    """
    return _lines("names", name, "ZeroShot(classes=...):")


def template_list(name: str) -> tuple[str, ...]:
    """The prompts of `templates/<name>.txt`, each with {} for the class. Raises UserError as `class_list` does."""
    return _lines("templates", name, "ZeroShot(templates=...):")


def _lines(folder: str, name: str, where: str) -> tuple[str, ...]:
    files = resources.files("mmjax.evaluators").joinpath(folder)
    known = sorted(file.name.removesuffix(".txt") for file in files.iterdir() if file.name.endswith(".txt"))
    if name not in known:
        raise UserError(unknown(where, name, known, f"lists in mmjax/evaluators/{folder}"))
    text = files.joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
