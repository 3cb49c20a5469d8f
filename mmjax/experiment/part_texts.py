"""Parts as they are written on a command line: `Tars("laion/{000..127}.tar", fields={"text": "json/caption"})`."""

import ast
import importlib
from typing import Any

import fiddle as fdl

from mmjax.errors import UserError, nearest
from mmjax.experiment import record
from mmjax.experiment.graph import complete, fields


def part_of_text(text: str) -> fdl.Config | None:
    """The part that a text calls, with values that are literals or parts; None where it calls none.

    Raises UserError where mmjax's faces have no such part, or it no such field.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id[:1].isupper()):
        return None
    return _part(tree)


def _part(call: ast.Call) -> fdl.Config:
    called = ast.unparse(call.func)
    made = {symbol: (module, symbol) for module, symbol in record.known().values()}
    if called not in made:
        raise UserError(f"{ast.unparse(call):.80}: mmjax has no part {called!r}{nearest(called, made)}")
    module, name = made[called]
    function = getattr(importlib.import_module(module), name)
    if not record.can_be_part(function):
        raise UserError(f"{ast.unparse(call):.80}: {called} is no part of an experiment")
    own = fields(function)
    for keyword in call.keywords:
        if keyword.arg not in own:
            raise UserError(
                f"{ast.unparse(call):.80}: {called} has no field {keyword.arg!r}{nearest(str(keyword.arg), own)}; it "
                f"has {', '.join(own)}"
            )
    if len(call.args) > len(own):
        raise UserError(f"{ast.unparse(call):.80}: {called} has {len(own)} fields, and was given {len(call.args)}")
    given = dict(zip(own, map(_value, call.args), strict=False))
    given |= {str(each.arg): _value(each.value) for each in call.keywords}
    return complete(fdl.Config(function, **given))


def _value(node: ast.expr) -> Any:
    """A literal, a part, or a list, tuple or dict of these."""
    if isinstance(node, ast.Call):
        return _part(node)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{ast.unparse(node):.80} is neither a number, a text, a list of these, nor a part") from error
