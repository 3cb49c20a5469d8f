"""The list of mechanisms that are taken away in turn fits the code: each text stands once, and each test is there."""

import ast

import pytest

from tests.faults.mutate import MUTATIONS, ROOT


@pytest.mark.parametrize("mechanism", MUTATIONS)
def test_a_mechanism_is_where_the_list_says(mechanism):
    mutation = MUTATIONS[mechanism]
    text = (ROOT / "mmjax" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.text) == 1
    ast.parse(text.replace(mutation.text, mutation.instead))  # a broken file would fail any test
    file, _, test = mutation.test.partition("::")
    functions = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert not test or test.partition("[")[0] in functions
