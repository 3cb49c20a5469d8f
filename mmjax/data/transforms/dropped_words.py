"""Takes words out of a text that nobody asks about."""

import string
from dataclasses import dataclass

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Transform


@dataclass(frozen=True)
class DropWords(Transform):
    """Takes function words out of a text, so that hidden words are those that a picture or a video can tell: "the" and
    "to" are guessed from the other words, and of a share of right words they would be the most.

    words: in small letters. A word of the text is one of them whatever its case and the punctuation around it, and goes
    with that. White space becomes one space. A text of which nothing is left is a bad example.
    """

    words: tuple[str, ...]

    def __call__(self, value: str, rng: Rng) -> str:
        del rng
        if not isinstance(value, str):
            raise BadExample(f"the caption is no text but {value!r:.40}", "undecodable")
        left = [word for word in value.split() if word.lower().strip(string.punctuation) not in self.words]
        if not left:
            raise BadExample(f"nothing is left of {value!r} without its function words", "empty")
        return " ".join(left)
