"""What isn't here is named as what it is."""

import pytest

from mmjax.interop import not_here
from mmjax.interop.hf.layout import FAMILIES


def test_types_are_those_of_hugging_face_and_none_can_be_read():
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    assert not set(not_here.MODEL_TYPES) - set(transformers.CONFIG_MAPPING)
    assert not set(not_here.MODEL_TYPES) & {family.model_type for family in FAMILIES}


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("siglip2", "is SigLIP 2 for pictures of any shape (NaFlex); its image tower isn't here"),
        ("siglip2_vision_model", "is SigLIP 2 for pictures of any shape (NaFlex); its image tower isn't here"),
        ("clap", "is CLAP; its audio tower, HTS-AT (a Swin transformer), isn't here"),
        ("tipsv2", "is TIPS v2; its towers aren't here"),
        ("sigclip", "isn't here"),
    ],
)
def test_a_type_says_its_model_and_what_is_missing(model_type, said):
    assert not_here.hugging_face(model_type) == f"model_type={model_type!r} {said}"


def test_towers_of_timm_and_of_texts():
    assert not_here.image_tower("vit_pe_core_base_patch16_224") == "PE"
    assert not_here.image_tower("vit_relpos_medium_patch16_cls_224") == "a ViT with relative positions"
    assert not_here.image_tower("maxvit_tiny") == "timm's maxvit_tiny"
    assert not_here.text_tower("facebook/nllb-200-distilled-600M") == "NLLB's encoder"
    assert not_here.text_tower("own/encoder") == "own/encoder"
