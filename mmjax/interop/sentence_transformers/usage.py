"""Opens an exported model by sentence-transformers: code for the card, and the ids that it makes of texts."""

from pathlib import Path
from typing import Any

from mmjax.interop.twins import usage
from mmjax.interop.twins.twin import Twin
from mmjax.interop.twins.usage import Ids

LIBRARY = "sentence-transformers"
NEEDS = ("sentence_transformers",)


def how_to_load(folder: Path, twin: Twin) -> str:
    """Code for the card."""
    return usage.python(
        twin,
        "sentence-transformers",
        *("from sentence_transformers import SentenceTransformer", ""),
        f"model = SentenceTransformer({folder.name!r})  # where this folder is, or its name on a hub",
        'vectors = model.encode(["a cat", "a dog"])',
        "print(model.similarity(vectors, vectors))",
    )


def ids(folder: Path, texts: list[str]) -> Ids:
    """Returns each text's ids, by the library."""
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    before = model.prompts.get(model.default_prompt_name, "") if model.default_prompt_name else ""
    rows = [model.tokenize([before + text])["input_ids"][0].tolist() for text in texts]
    return [(row, len(row)) for row in rows]
