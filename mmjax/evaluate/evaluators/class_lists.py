"""Names of classes and prompts that many evaluate with, kept as files beside this one."""

from collections.abc import Sequence
from importlib import resources
from string import Formatter

from mmjax.errors import UserError, nearest, unknown


def class_list(name: str) -> tuple[str, ...]:
    """The class names of `names/<name>.txt`, in the order of the data's labels.

    Raises:
        UserError: there is no such list (the nearest is named).
    """
    return _lines("names", name, "ZeroShot(classes=...):")


def template_list(name: str) -> tuple[str, ...]:
    """The prompts of `templates/<name>.txt`, each with {} for the class. Raises UserError as `class_list` does."""
    return _lines("templates", name, "ZeroShot(templates=...):")


def checked_templates(templates: str | Sequence[str], where: str) -> tuple[str, ...]:
    """Prompts with a place for the class: the given ones, a single string, or those of a list by its name.

    Raises:
        UserError: no templates, or one that has no `{}`, or another field than that; `where` names their use.
    """
    if isinstance(templates, str):
        if not set(templates) & set("{} ") and templates not in (known := _known("templates")):
            raise UserError(f"{where}: {templates!r} has no {{}} where the label goes, and is none of the lists "
                            f"{', '.join(known)}{nearest(templates, known)}")  # fmt: skip
        templates = (templates,) if set(templates) & set("{} ") else template_list(templates)
    if not templates:
        raise UserError(f"{where}: there is none: give at least one, '{{}}' for the label alone")
    for template in templates:
        parts = _parts(template, where)
        if not any(field for _, field in parts):
            raise UserError(f"{where}: {template!r} has no {{}} where the label goes")
    return tuple(templates)


def filled(template: str, name: str) -> str:
    """A prompt with a class's name in place of `{}`."""
    return "".join(text + name * field for text, field in _parts(template, "templates"))


def _parts(template: str, where: str) -> list[tuple[str, bool]]:
    """The parts of a template: texts, and whether the name follows each."""
    try:
        found = list(Formatter().parse(template))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where}: {template!r} can't be read ({error}): the label goes where {{}} is, and a brace itself is {{{{ "
            "or }}"
        ) from error
    for _, field, form, conversion in found:
        if field or form or conversion:
            inner = f"{field}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise UserError(f"{where}: {template!r} has {{{inner}}}, which is no place for the label: write {{}}")
    return [(text, field is not None) for text, field, _, _ in found]


def _known(folder: str) -> list[str]:
    files = resources.files("mmjax.evaluate.evaluators").joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))


def _lines(folder: str, name: str, where: str) -> tuple[str, ...]:
    files = resources.files("mmjax.evaluate.evaluators").joinpath(folder)
    known = _known(folder)
    if name not in known:
        raise UserError(unknown(where, name, known, f"lists in mmjax/evaluators/{folder}"))
    text = files.joinpath(f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
