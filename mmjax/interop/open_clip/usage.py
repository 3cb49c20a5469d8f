"""Opens an exported model by open_clip: code for the card, and the ids that its tokenizers make."""

from pathlib import Path

from mmjax.interop.twins import usage
from mmjax.interop.twins.twin import Twin
from mmjax.interop.twins.usage import Ids

LIBRARY = "open_clip"
NEEDS = ("open_clip", "transformers", "torch")
INSTALL = "open_clip_torch transformers"


def how_to_load(folder: Path, twin: Twin) -> str:
    """Code for the card."""
    size = usage.side(twin.bundle)
    if twin.kind == "CoCa":
        shown = (
            "    out = model.eval()(prepare(picture)[None], texts)",
            'print(out["image_features"] @ out["text_features"].T)',
            'print(out["logits"].argmax(dim=-1))  # of each next word',
        )
    else:
        shown = (
            "    image, text, *_ = model.eval()(prepare(picture)[None], texts)",
            "print(image @ text.T)",
        )
    return usage.python(
        twin,
        INSTALL,
        *("import open_clip", "import torch", "from PIL import Image", ""),
        f"name = {f'local-dir:{folder.name}'!r}  # where this folder is; on a hub: hf-hub:ORG/NAME",
        "model, prepare = open_clip.create_model_from_pretrained(name)",
        f'picture = Image.new("RGB", ({size}, {size}), "red")  # or Image.open("cat.jpg")',
        *(
            ['texts = open_clip.get_tokenizer(name)(["a cat", "a dog"])']
            if "text" in twin.bundle.tokenizers
            else ["texts = torch.tensor([[1, 2]])  # there is no tokenizer here"]
        ),
        "with torch.no_grad():",
        *shown,
    )


def ids(folder: Path, texts: list[str]) -> Ids:
    """Returns each text's ids, by the library."""
    import open_clip

    return [(ids, None) for ids in open_clip.get_tokenizer(f"local-dir:{folder}")(texts).tolist()]
