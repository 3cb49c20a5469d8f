"""The contract of a project's module `usage`, code by which its library opens an exported model, and shared parts.

A project's module `usage` has `LIBRARY`, how hubs call the library; `NEEDS`, the packages that reading texts by it
takes; `how_to_load(folder, twin)`, code that runs as it stands; and `ids(folder, texts)`, of each text the ids that its
own tokenizer makes of it, and how many of them are real (None: all that follow count).
"""

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.interop.bundle import Bundle
from mmjax.interop.twins.twin import Twin

ZERO_SHOT = "zero-shot-image-classification"  # as hubs call that task
Ids = list[tuple[list[int], int | None]]


def python(twin: Twin, install: str, *lines: str) -> str:
    """Lines of Python, with what is to be installed before."""
    if install != "mmjax" and isinstance(twin.bundle.tokenizers.get("text"), PieceTokenizer):
        install += " sentencepiece protobuf"
    return f"`pip install {install}`; then\n\n```python\n" + "\n".join(lines) + "\n```"


def side(bundle: Bundle) -> int:
    """Pixels of its pictures."""
    size = getattr(bundle.config.towers.get("image"), "size", 224)
    return size if isinstance(size, int) else max(size)
