"""Templates as data: the marks in their strings, and what is refused."""

import pytest

from mmjax.data.transforms.chat_templates import TEMPLATES, ChatTemplate, template_of
from mmjax.errors import UserError


def test_strings_are_cut_at_their_marks() -> None:
    template = TEMPLATES["llama3"]
    assert template.parts("a<|eot_id|>{eos}b<|other|>") == ["a", "<|eot_id|>", "", "{eos}", "b<|other|>"]
    assert sorted(template.used()) == sorted(template.marks)
    assert TEMPLATES["vicuna_v1"].used() == ["{eos}", "{bos}"]


def test_a_template_is_known_by_name_or_given() -> None:
    own = ChatTemplate(("a", "b"), ("c", "d"), ("e", "f"))
    assert template_of(own) is own
    assert template_of("chatml") is TEMPLATES["chatml"]
    with pytest.raises(UserError, match=r"template='chatlm' is not one of plain, .*did you mean chatml.*of your own"):
        template_of("chatlm")
    with pytest.raises(UserError, match="nothing ends the assistant's turn"):
        ChatTemplate(("a", "b"), ("c", " "), ("e", "f"))
