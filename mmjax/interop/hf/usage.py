"""Opens an exported model by transformers: code for the card, and the ids that its tokenizers make."""

from pathlib import Path
from typing import Any

from mmjax.interop.parts import text_reader
from mmjax.interop.twins import usage
from mmjax.interop.twins.twin import Twin
from mmjax.interop.twins.usage import Ids

LIBRARY = "transformers"
NEEDS = ("transformers",)
INSTALL = "transformers torch pillow"
ANSWERING = "BlipForQuestionAnswering"
PIPELINE_LENGTH = 64  # ids to which transformers' pipeline fills texts up for SigLIP, whatever the model's length


def how_to_load(folder: Path, twin: Twin) -> str:
    """Code for the card."""
    towers, size = twin.bundle.config.towers, usage.side(twin.bundle)
    picture = f'picture = Image.new("RGB", ({size}, {size}), "red")  # or Image.open("cat.jpg")'
    place = f"folder = {folder.name!r}  # where this folder is, or its name on a hub"
    with_texts = "text" in twin.bundle.tokenizers
    length = twin.bundle.config.towers["text"].length if "text" in towers else 0
    fits = twin.kind == "CLIPModel" or (twin.kind == "SiglipModel" and length == PIPELINE_LENGTH)
    exact = (
        "\n\nWhere torchvision is installed, transformers resizes by it, some grey levels apart from PIL: "
        '`AutoImageProcessor.from_pretrained(folder, backend="pil")` (`use_fast=False` before version 5) is as here.'
        if "image" in towers
        else ""
    )
    if text_reader(twin.bundle.config) is not None and "text" not in towers:
        if "image" in towers:
            return _captioner(twin, with_texts, place, picture) + exact
        imports = "import torch", f"from transformers import AutoTokenizer, {twin.kind}"
        code = [place, f"model = {twin.kind}.from_pretrained(folder).eval()"]
        if with_texts:
            code.append("tokenizer = AutoTokenizer.from_pretrained(folder)")
            code.append('inputs = tokenizer("A cat", add_special_tokens=False, return_tensors="pt").input_ids')
            shown = "tokenizer.decode(model.generate(inputs, max_new_tokens=20)[0])"
        else:
            code.append("inputs = torch.tensor([[1, 2]])  # there is no tokenizer here")
            shown = "model.generate(inputs, max_new_tokens=20)"
        return usage.python(twin, INSTALL.removesuffix(" pillow"), *imports, "", *code, f"print({shown})")
    if fits and with_texts:
        classify = f'classify = pipeline("{usage.ZERO_SHOT}", model=folder)'
        ask = 'print(classify(picture, candidate_labels=["a cat", "a dog"], hypothesis_template="{}"))'
        imports = "from PIL import Image", "from transformers import pipeline"
        return usage.python(twin, INSTALL, *imports, "", place, classify, picture, ask) + exact
    imports, code = ["import torch"], [f"model = {twin.kind}.from_pretrained(folder).eval()", "inputs = {}"]
    names = [twin.kind]
    if "image" in towers:
        imports.append("from PIL import Image")
        names.append("AutoImageProcessor")
        code += [picture, 'inputs |= AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")']
    if with_texts:
        names.append("AutoTokenizer")
        how = f'padding="max_length", truncation=True, max_length={length}, return_tensors="pt"'
        fused = bool(twin.bundle.config.__arguments__.get("fusions"))  # each text is read with its picture
        words = '["a cat"]' if fused else '["a cat", "a dog"]'
        if twin.kind == ANSWERING:  # its decoder would read what fills up
            words, how = '["is it a cat?"]', 'return_tensors="pt"'
        code += ["tokenizer = AutoTokenizer.from_pretrained(folder)", f"inputs |= tokenizer({words}, {how})"]
    elif "text" in towers:
        code.append("inputs |= {'input_ids': torch.tensor([[1, 2]])}  # there is no tokenizer here")
    if "regions" in towers:
        code.append(f"features, boxes = torch.zeros(1, 36, {towers['regions'].features}), torch.zeros(1, 36, 4)")
        code.append('inputs |= {"visual_feats": features, "visual_pos": boxes}  # of a detector')
    if "audio" in towers:
        names.append("AutoFeatureExtractor")
        code += ["extractor = AutoFeatureExtractor.from_pretrained(folder)", "sound = torch.zeros(16_000).numpy()"]
        code.append('inputs |= extractor(sound, sampling_rate=16_000, return_tensors="pt")')
    imports.append(f"from transformers import {', '.join(sorted(names))}")
    end = ["with torch.no_grad():", "    print(model(**inputs))"]
    if twin.kind == ANSWERING:
        made = "model.generate(**inputs, max_new_tokens=20)"
        end = [f"print(tokenizer.batch_decode({made}, skip_special_tokens=True))" if with_texts else f"print({made})"]
    return usage.python(twin, INSTALL, *imports, "", place, *code, *end) + exact


def _captioner(twin: Twin, with_texts: bool, place: str, picture: str) -> str:
    """Code that captions a picture; without a tokenizer it prints the ids of the caption's words."""
    names, needs = ["AutoImageProcessor", twin.kind], ["from PIL import Image"]
    code = [
        place,
        f"model = {twin.kind}.from_pretrained(folder).eval()",
        picture,
        'inputs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")',
    ]
    if with_texts:
        names.append("AutoTokenizer")
        code.append("written = model.generate(**inputs, max_new_tokens=20)")
        code.append("print(AutoTokenizer.from_pretrained(folder).decode(written[0], skip_special_tokens=True))")
    else:
        needs.insert(0, "import torch")
        begin = "torch.tensor([[1]])  # there is no tokenizer here"
        if twin.kind == "PaliGemmaForConditionalGeneration":  # a placeholder of each of the picture's tokens
            begin = "torch.tensor([[model.config.image_token_id] * model.config.text_config.num_image_tokens + [1]])"
            code.append('inputs["token_type_ids"] = torch.zeros_like(begin)')
        code.insert(len(code) - (twin.kind == "PaliGemmaForConditionalGeneration"), f"begin = {begin}")
        code.append("print(model.generate(**inputs, input_ids=begin, max_new_tokens=20))")
    return usage.python(twin, INSTALL, *needs, f"from transformers import {', '.join(sorted(names))}", "", *code)


def ids(folder: Path, texts: list[str]) -> Ids:
    """Returns each text's ids, by the library."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    given = tokenizer(texts, padding="max_length", truncation=True)
    masks = given.get("attention_mask")
    return [(ids, None if masks is None else sum(masks[i])) for i, ids in enumerate(given["input_ids"])]
