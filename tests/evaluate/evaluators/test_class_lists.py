import pytest

from mmjax.errors import UserError
from mmjax.evaluate.evaluators.class_lists import checked_templates, class_list, template_list


def test_imagenets_classes_stand_in_the_order_of_its_labels():
    names = class_list("imagenet")
    assert len(names) == 1000
    assert (names[0], names[1], names[207], names[281], names[999]) == (
        "tench", "goldfish", "Golden Retriever", "tabby cat", "toilet paper")  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [("clip80", 80), ("clip18", 18), ("clip7", 7)])
def test_prompts_have_one_place_for_the_class(name, count):
    prompts = template_list(name)
    assert len(set(prompts)) == count
    assert all(prompt.count("{}") == 1 and prompt.format("x") for prompt in prompts)


def test_an_unknown_list_names_the_nearest():
    with pytest.raises(UserError, match=r"'imagnet', but .*did you mean imagenet\?"):
        class_list("imagnet")
    with pytest.raises(UserError, match="did you mean clip80"):
        template_list("clip800")


def test_a_word_without_a_place_for_the_label_is_told_what_it_lacks():
    with pytest.raises(UserError, match=r"--templates: 'photo' has no {} where the label goes, and is none of the"):
        checked_templates("photo", "--templates")
    with pytest.raises(UserError, match="did you mean clip80"):
        checked_templates("clip800", "--templates")
    assert checked_templates("clip80", "--templates") == template_list("clip80")
