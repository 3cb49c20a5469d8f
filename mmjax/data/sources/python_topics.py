"""The reference texts that Python itself carries: real English text that needs no download."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmjax.data.sources.contract import Source
from mmjax.data.sources.folder import FolderRecords
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class PythonTopics(Source):
    """The texts behind Python's `help("topics")`, parts of its reference manual and its library's: 370,000 characters
    in Python 3.11, under the licence of the Python Software Foundation. Other versions have other texts.

    Columns: `id`, the topic's name with the passage's number, `text`, and `topic`. A hash of the topic says which split
    all of its text is in. A paragraph that several topics have is in the first of them alone, in the alphabet's order.

    characters: the length of a passage, whole lines of its topic's text in order; a longer line is a passage of its
        own. None: a record is a whole topic.
    """

    characters: int | None = None

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        """Opens a split.

        Raises UserError for a length below 1, or where this Python has no such texts, `SplitNotFoundError` for a split.
        """
        del data_dir
        if self.characters is not None and self.characters < 1:
            raise UserError(f"PythonTopics(characters={self.characters}): a passage has 1 at least, or None for topics")
        if split not in SPLITS:
            raise SplitNotFoundError(f"PythonTopics has no split {split!r}, it has {', '.join(SPLITS)}")
        columns: dict[str, list[Any]] = {"id": [], "text": [], "topic": []}
        for topic, text in apart(_topics()).items():
            if _split_of(topic) == split:
                for number, passage in enumerate(passages(text, self.characters)):
                    columns["id"].append(f"{topic}#{number}")
                    columns["text"].append(passage)
                    columns["topic"].append(topic)
        return FolderRecords(columns)


def passages(text: str, characters: int | None) -> Iterator[str]:
    """The passages of a text of so many characters at most, as `PythonTopics` cuts them; the text where None."""
    passage = ""
    for line in text.splitlines(keepends=True):
        if passage and characters is not None and len(passage) + len(line) > characters:
            yield passage
            passage = ""
        passage += line
    if passage.strip():
        yield passage


def apart(topics: Mapping[str, str]) -> dict[str, str]:
    """The topics in the alphabet's order, each without the paragraphs of those before it; but for empty ones."""
    seen: set[str] = set()
    found = {}
    for topic, text in sorted(topics.items()):
        own = []
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if words and words not in seen:
                own.append(paragraph)
                seen.add(words)
        if own:
            found[topic] = "\n\n".join(own) + "\n"
    return found


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "PythonTopics reads pydoc_data.topics of Python's standard library, which this Python was installed without"
        ) from error
    return topics


def _split_of(topic: str) -> str:
    """The split that a topic's hash falls into."""
    digest = hashlib.blake2b(f"topic/{topic}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for split, share in SPLITS.items():
        place -= share
        if place < 0:
            return split
    return "test"
