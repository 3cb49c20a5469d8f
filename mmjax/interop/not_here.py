"""Names what other projects have and mmjax hasn't, so that a refusal says what is missing.

Names that a config holds were written by a program: nothing that only resembles one is ever offered in its place.
"""

import re

# Hugging Face's `model_type`: the model, and what of it isn't here. Its towers alone have names that begin so.
MODEL_TYPES: dict[str, tuple[str, str]] = {
    "siglip2": ("SigLIP 2 for pictures of any shape (NaFlex)", "its image tower"),
    "clap": ("CLAP", "its audio tower, HTS-AT (a Swin transformer),"),
    "align": ("ALIGN", "its image tower, EfficientNet,"),
    "altclip": ("AltCLIP", "its text tower, XLM-RoBERTa,"),
    "chinese_clip": ("Chinese CLIP", "its text tower, a BERT with a projection,"),
    "metaclip_2": ("MetaCLIP 2", "its class (open_clip:ViT-H-14-worldwide/metaclip2_worldwide is)"),
    "clipseg": ("CLIPSeg", "its decoder of masks"),
    "groupvit": ("GroupViT", "its grouping image tower"),
    "owlvit": ("OWL-ViT", "its detection head"),
    "owlv2": ("OWLv2", "its detection head"),
    "xclip": ("X-CLIP", "its video tower"),
    "blip-2": ("BLIP-2", "its Q-Former"),
    "instructblip": ("InstructBLIP", "its Q-Former"),
    "bridgetower": ("BridgeTower", "its fusion encoder"),
    "visual_bert": ("VisualBERT", "its single transformer of both inputs"),
    "vision-text-dual-encoder": ("a pair of any two towers", "its class"),
    "aimv2": ("AIMv2", "its towers (RMSNorm, SwiGLU)"),
    "tipsv2": ("TIPS v2", "its towers"),
    "pe_audio": ("PE-AV", "its towers"),
    "vit": ("ViT", "its class"),
    "vit_msn": ("ViT-MSN", "its class"),
    "deit": ("DeiT", "its class"),
    "beit": ("BEiT", "its image tower (relative positions)"),
    "data2vec-vision": ("data2vec", "its image tower (relative positions)"),
    "ijepa": ("I-JEPA", "its class"),
    "hiera": ("Hiera", "its image tower"),
    "swin": ("Swin", "its image tower"),
    "swinv2": ("Swin V2", "its image tower"),
    "convnext": ("ConvNeXt", "its image tower"),
    "convnextv2": ("ConvNeXt V2", "its image tower"),
    "resnet": ("ResNet", "its class (CLIP's ResNets are read from open_clip)"),
    "efficientnet": ("EfficientNet", "its image tower"),
    "dinov2_with_registers": ("DINOv2 with registers", "its image tower, for the registers,"),
    "dinov3_vit": ("DINOv3", "its image tower (registers, rotary positions)"),
    "dinov3_convnext": ("DINOv3", "its image tower, ConvNeXt,"),
    "videomae": ("VideoMAE", "its video tower"),
    "vivit": ("ViViT", "its video tower"),
    "timesformer": ("TimeSformer", "its video tower"),
    "timm_wrapper": ("a model of timm's", "its class"),
    "roberta": ("RoBERTa", "its text tower"),
    "xlm-roberta": ("XLM-RoBERTa", "its text tower"),
    "distilbert": ("DistilBERT", "its text tower"),
    "albert": ("ALBERT", "its text tower (shared layers)"),
    "electra": ("ELECTRA", "its text tower"),
    "deberta": ("DeBERTa", "its text tower (relative positions)"),
    "deberta-v2": ("DeBERTa", "its text tower (relative positions)"),
    "mpnet": ("MPNet", "its text tower (relative positions)"),
    "nomic_bert": ("Nomic BERT", "its text tower (rotary positions)"),
    "modernbert": ("ModernBERT", "its text tower"),
    "t5": ("T5", "its text tower (relative positions)"),
    "mt5": ("mT5", "its text tower (relative positions)"),
    "wav2vec2": ("wav2vec 2.0", "its audio tower"),
    "hubert": ("HuBERT", "its audio tower"),
    "wavlm": ("WavLM", "its audio tower"),
    "whisper": ("Whisper", "its encoder and decoder"),
}

# Of timm's names of image towers, their beginnings; the first that fits.
TIMM_TOWERS = {
    r"eva0?2?_": "EVA",
    r"vit_pe_": "PE",
    r"vit_\w+_mci_": "MobileCLIP's ViT with a convolutional stem",
    r"fastvit_": "FastViT",
    r"vitamin_": "ViTamin",
    r"convnext": "ConvNeXt",
    r"swin": "Swin",
    r"vit_relpos_": "a ViT with relative positions",
    r"vit_\w+_gap_": "timm's ViT without a CLS",
    r"naflexvit": "NaFlex",
    r"resnet|resnext": "timm's ResNet",
    r"vit_": "timm's ViT with other sizes or another pooling than SigLIP's",
}
# Of Hugging Face's names of text towers within open_clip's configs, what they hold.
TEXT_TOWERS = {"xlm-roberta": "XLM-RoBERTa", "roberta": "RoBERTa", "nllb": "NLLB's encoder", "mt5": "mT5", "t5": "T5"}

# open_clip's models, their names' beginnings, and what of them isn't here.
OPEN_CLIP = {
    r"PE-Core-": "its image tower, PE",
    r"EVA0[12]-": "its image tower, EVA",
    r"MobileCLIP2?-B": "its image tower, MobileCLIP's ViT with a convolutional stem",
    r"MobileCLIP2?-S": "its image tower, FastViT",
    r"MobileCLIP2-L-14": "its image tower, timm's ViT with other sizes or another pooling than SigLIP's",
    r"ViTamin-": "its image tower, ViTamin",
    r"convnext_": "its image tower, ConvNeXt",
    r"swin_": "its image tower, Swin",
    r"vit_relpos_": "its image tower, a ViT with relative positions",
    r"vit_\w+_gap_": "its image tower, timm's ViT without a CLS",
    r"coca_roberta": "its text tower, RoBERTa",
    r"xlm-roberta-": "its text tower, XLM-RoBERTa",
    r"roberta-": "its text tower, RoBERTa",
    r"nllb-clip-": "its text tower, NLLB's encoder",
    r"mt5-": "its text tower, mT5",
}
# Those whose every part is here, of which open_clip publishes no weights.
UNPUBLISHED = (
    "coca_base",
    *("ViT-B-16-plus", "ViT-B-32-plus-256", "ViT-H-16", "ViT-L-14-280", "ViT-L-14-worldwide", "ViT-L-16"),
    *("ViT-L-16-320", "ViT-M-16", "ViT-M-16-alt", "ViT-M-32", "ViT-M-32-alt", "ViT-S-16", "ViT-S-16-alt", "ViT-S-32"),
    *("ViT-S-32-alt", "ViT-e-14"),
)
ENDINGS = re.compile(r"_(vision|text|audio|image)_model$")


def hugging_face(model_type: str) -> str:
    """A sentence on a `model_type` that can't be read: its name, and the parts that are missing here."""
    known = MODEL_TYPES.get(model_type) or MODEL_TYPES.get(ENDINGS.sub("", model_type))
    if known is None:
        return f"model_type={model_type!r} isn't here"
    title, missing = known
    verb = "aren't" if "towers" in missing else "isn't"
    return f"model_type={model_type!r} is {title}; {missing} {verb} here"


def image_tower(timm_name: str) -> str:
    """The name of one of timm's models."""
    return next((title for start, title in TIMM_TOWERS.items() if re.match(start, timm_name)), f"timm's {timm_name}")


def text_tower(hf_name: str) -> str:
    """The name of one of Hugging Face's text models."""
    name = hf_name.rsplit("/", 1)[-1].lower()
    return next((title for start, title in TEXT_TOWERS.items() if name.startswith(start)), hf_name)


def open_clip(model: str) -> str | None:
    """A sentence on the parts of open_clip's model that are missing here, by its name; None where it isn't known."""
    if model in UNPUBLISHED:
        return f"{model} is known; open_clip publishes no weights of it"
    missing = next((missing for start, missing in OPEN_CLIP.items() if re.match(start, model)), None)
    return f"{model} is known; {missing}{',' * (', ' in missing)} isn't here" if missing else None
